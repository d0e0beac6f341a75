"""Helpers of every rule: where things are and what a verb is told."""

# What jobs cost: `nsvit plan` shows the same numbers.
COSTS = planning.Costs(exp)


wildcard_constraints:
    model="[a-z][a-z0-9_]*",
    arm="[a-z][a-z0-9_]*",
    set="[a-z][a-z0-9_]*",
    name="[a-z][a-z0-9_]*",
    seed="[0-9]+",
    table="|".join(exp.tables),
    job="[a-z][a-z0-9_]*",
    part="all|seed[0-9]+",


# And GPUs, of a job that several processes may compute together; one each.
CORES = exp.machine.cores


def spec(build, *wildcards):
    """A params function: the JSON spec of one job, from the builder of that name in nsvit.specs."""

    def of(w):
        values = [getattr(w, name) for name in wildcards]
        values = [int(v) if n == "seed" else v for n, v in zip(wildcards, values)]
        return build(exp, *values).model_dump_json()

    return of


def memory(rule, *wildcards):
    """The memory of a job (MB), by the plan; more at every further attempt."""

    def of(w, attempt):
        values = [getattr(w, name) for name in wildcards]
        return planning.memory_mb(COSTS, rule, *values) * attempt

    return of


def minutes(rule, *wildcards):
    """The time limit of a job (minutes), by the plan."""
    return lambda w: planning.minutes(COSTS, rule, *[getattr(w, n) for n in wildcards])


def index(name):
    return f"{R}/index/{name}.parquet"


def weights(name, checkpoint=None):
    """The files of a model given as `local-dir:FOLDER` or with a checkpoint; else nothing.

    A checkpoint that is not there (yet) is left to the verb, which says what to do, so that a dry
    run needs no weights.
    """
    if checkpoint is not None:
        return [checkpoint] if Path(checkpoint).is_file() else []
    folder = local_dir(name)
    return (
        []
        if folder is None
        else [f"{folder}/config.json", f"{folder}/model.safetensors"]
    )


def weights_of(model):
    """The files of a model of the configuration."""
    return weights(model.timm, model.checkpoint)


def indices(conditions):
    """One index file per set that the conditions use, in config order."""
    return [index(name) for name in dict.fromkeys(c.set for c in conditions)]


def manifests(model, arm):
    """The manifests that list an arm's records: one for each job and part."""
    folder = f"{R}/records/{model}/{arm}"
    return [
        f"{folder}/{job}.{part}.json"
        for job in exp.jobs(model, arm)
        for part in specs.parts(exp, model, arm)
    ]


def evaluated(w):
    """The final weights of the runs of a part."""
    seeds = specs.part_seeds(exp, w.model, w.arm, w.part)
    return [f"{R}/runs/{w.model}/{w.arm}/seed{s}/model.safetensors" for s in seeds]


def evaluated_on(w):
    """The index files of a job."""
    return indices(
        specs.evaluate(exp, w.model, w.arm, w.job, w.part).conditions.values()
    )


def followed(w):
    """The files of the source models of a job."""
    sources = specs.evaluate(exp, w.model, w.arm, w.job, w.part).sources
    return [path for source in sources.values() for path in weights_of(source)]


def render_needs(w):
    """Set a is filtered by a reference CNN; set c corrupts pictures of val."""
    if w.set == "a":
        return weights(exp.data.menagerie.reference_cnn)
    return [f"{R}/rendered/val.json"] if w.set == "c" else []


def made_pictures(w):
    """What says that a set was made here; nothing for a set that is on disk."""
    if exp.data.sets[w.set].corrupt:
        return [f"{R}/corrupted/{w.set}.json"]
    return [f"{R}/rendered/{w.set}.json"] if exp.data.menagerie else []


FOLDERS = {name: f"{exp.data.root}/{own.path}" for name, own in exp.data.sets.items()}


def is_there(name):
    """Whether a set that is not made here has its folder."""
    made = exp.data.menagerie or exp.data.sets[name].corrupt
    return bool(made) or Path(FOLDERS[name]).is_dir()


def records_of(pairs):
    """The records of these (model, arm), of every seed."""
    return [path for model, arm in pairs for path in manifests(model, arm)]


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


def table(name, caption=None):
    """The three forms of a table; a verb is given the first and writes all."""
    CAPTIONS["tables"][name] = caption or name
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
    CAPTIONS["figures"][name] = caption
    shown = report(
        f"{R}/figures/{name}.svg",
        category="Figures",
        caption=f"../report/{caption}.rst",
    )
    return {"svg": shown, "png": f"{R}/figures/{name}.png"}
