"""Helpers of every rule: where things are and what a verb is told."""


wildcard_constraints:
    model="[a-z][a-z0-9_]*",
    arm="[a-z][a-z0-9_]*",
    set="[a-z][a-z0-9_]*",
    name="[a-z][a-z0-9_]*",
    seed="[0-9]+",
    table="|".join(exp.tables),


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


def records_of(pairs):
    """The records of these (model, arm), of every seed."""
    return [f"{R}/records/{model}/{arm}.parquet" for model, arm in pairs]


def table(name, caption=None):
    """The three forms of a table; a verb is given the first and writes all."""
    readable = report(
        f"{R}/tables/{name}.md",
        category="Tables",
        caption=f"../report/{caption or name}.rst",
    )
    return {
        "csv": f"{R}/tables/{name}.csv",
        "md": readable,
        "tex": f"{R}/tables/{name}.tex",
    }


def figure(name, caption):
    """Both forms of a figure; a verb is given the first and writes both."""
    shown = report(
        f"{R}/figures/{name}.svg",
        category="Figures",
        caption=f"../report/{caption}.rst",
    )
    return {"svg": shown, "png": f"{R}/figures/{name}.png"}
