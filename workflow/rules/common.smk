"""Helpers of every rule: where things are and what a verb is told."""


wildcard_constraints:
    model="[a-z][a-z0-9_]*",
    arm="[a-z][a-z0-9_]*",
    set="[a-z][a-z0-9_]*",
    name="[a-z][a-z0-9_]*",
    seed="[0-9]+",


def spec(build, *wildcards):
    """A params function: the JSON spec of one job, from the builder of that name in nsvit.specs."""

    def of(w):
        values = [getattr(w, name) for name in wildcards]
        values = [int(v) if n == "seed" else v for n, v in zip(wildcards, values)]
        return build(exp, *values).model_dump_json()

    return of


def index(name):
    return f"{R}/index/{name}.parquet"


def weights(name):
    """The files of a model given as `local-dir:FOLDER`; nothing for a timm name."""
    folder = local_dir(name)
    return (
        []
        if folder is None
        else [f"{folder}/config.json", f"{folder}/model.safetensors"]
    )


def indices(conditions):
    """One index file per set that the conditions use, in config order."""
    return [index(name) for name in dict.fromkeys(c.set for c in conditions)]


def render_needs(w):
    """Set a is filtered by a reference CNN; set c corrupts pictures of val."""
    if w.set == "a":
        return weights(exp.data.menagerie.reference_cnn)
    return [f"{R}/rendered/val.json"] if w.set == "c" else []


# Caption file by name of a table or figure; a figure's name may end in a wildcard.
CAPTIONS = {"tables": {}, "figures": {}}


def text_of(caption):
    """A caption in one line: Snakemake's report and ours show the same file."""
    path = Path(workflow.basedir, "workflow", "report", f"{caption}.rst")
    return " ".join(path.read_text(encoding="utf-8").split())


def captions(kind, names):
    """The caption of every table or figure, in the order of the names."""
    found = {}
    for name in names:
        fitting = [
            n
            for n in CAPTIONS[kind]
            if n == name or ("{" in n and name.startswith(n.split("{")[0]))
        ]
        best = max(fitting, key=lambda n: (n == name, len(n)), default=None)
        found[name] = text_of(CAPTIONS[kind][best]) if best else ""
    return found


def table(name):
    """The three forms of a table; a verb is given the first and writes all."""
    CAPTIONS["tables"][name] = name
    readable = report(
        f"{R}/tables/{name}.md", category="Tables", caption=f"../report/{name}.rst"
    )
    return {
        "csv": f"{R}/tables/{name}.csv",
        "md": readable,
        "tex": f"{R}/tables/{name}.tex",
    }


def figure(name, caption):
    """Both forms of a figure; a verb is given the first and writes both."""
    CAPTIONS["figures"][name] = caption
    shown = report(
        f"{R}/figures/{name}.svg",
        category="Figures",
        caption=f"../report/{caption}.rst",
    )
    return {"svg": shown, "png": f"{R}/figures/{name}.png"}
