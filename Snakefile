# The whole pipeline: pictures -> models -> nullspace -> noise -> finetuning -> records -> tables.
#
#   snakemake --cores all                                   the default experiment
#   snakemake --cores all --configfile config/smoke.yaml    the same in minutes, for a first look
#   snakemake --cores all -R finetune                       one rule again, and what follows from it
#   snakemake --cores all pretrain                          train the shipped weights from scratch
from pathlib import Path

import snakemake.benchmark
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from nsvit import cluster, planning, specs
from nsvit.config import (
    RECIPES,
    attack_series,
    local_dir,
    refuse_repeated_keys,
    validate,
)
from nsvit.errors import NsvitError

min_version("9.0")

# Snakemake looks at the memory of a young job twice a second, at every page that it has mapped, and
# torch's libraries have many. Every two seconds will do (docs/log.md: what Snakemake itself took).
snakemake.benchmark.BENCHMARK_INTERVAL_SHORT = 2.0

if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


try:
    for path in workflow.config_settings.configfiles or ["config/config.yaml"]:
        refuse_repeated_keys(path)
    exp = validate(config, source="config")
except NsvitError as error:
    raise WorkflowError(str(error)) from None

R = f"results/{exp.experiment}"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/nullspace.smk"
include: "workflow/rules/noise.smk"
include: "workflow/rules/studies.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/figures_extra.smk"
include: "workflow/rules/page.smk"


# Seconds each, without torch: on a cluster they run where Snakemake does, and are no jobs. So does
# the drawing of embedded pictures, half a minute at most (set `a` with a small CNN); to look
# through those of ImageNet takes hours.
LIGHT = [
    one.name
    for one in workflow.rules
    if one.name in ("plan", "contact_sheet", "scores", "report")
    or one.name.split("_")[0] in ("table", "figure")
    or exp.data.menagerie
    and one.name in ("render", "scan")
]
workflow.localrules(*LIGHT)  # `localrules:` takes no computed list


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        SHEETS,
        f"{R}/report.html",
        f"{R}/README.md",


onstart:
    # Before anything is computed: with `keep-going`, finetuning would go on without them.
    scanned = [
        j.wildcards.set
        for j in workflow.dag.needrun_jobs()
        if j.rule.name == "scan"
    ]
    missing = [FOLDERS[name] for name in scanned if not is_there(name)]
    if missing:
        raise WorkflowError(
            f"no such folder: {', '.join(missing)} (data.root and `path` of the set). What is "
            "there, and where the rest is had: nsvit check-data --config <your configuration>"
        )
    if workflow.executor_plugin.name == "slurm":
        jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
        wanted = {job.rule.name: job.resources for job in jobs}
        try:
            cluster.check_slurm(
                {
                    name: asked.get("slurm_partition")
                    for name, asked in wanted.items()
                },
                {name for name, asked in wanted.items() if asked.get("gpu")},
            )
        except NsvitError as error:
            raise WorkflowError(str(error)) from None


onsuccess:
    # Late: a second of imports that jobs do not need.
    from nsvit.report.ending import ending

    logger.info(ending(Path(R), exp.tables, exp.note))


onerror:
    logger.error(
        "A job failed; its log above says why. What is finished is kept: mend the cause and run "
        "the same command again. Until then, a report of what there is:\n"
        f"  nsvit report --results {R} --out {R}/partial.html"
    )
