# The whole pipeline: pictures -> models -> nullspace -> noise -> finetuning -> records -> tables.
#
#   snakemake --cores all                                   the default experiment
#   snakemake --cores all --configfile config/smoke.yaml    the same in about a minute
#   snakemake --cores all -R finetune                       one rule again, and what follows from it
#   snakemake --cores all pretrain                          train the shipped weights from scratch
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from nsvit import planning, specs
from nsvit.config import RECIPES, attack_series, local_dir, validate
from nsvit.errors import NsvitError

min_version("9.0")

if not workflow.config_settings.configfiles:

    configfile: "config/config.yaml"


try:
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


rule all:
    default_target: True
    input:
        TABLES,
        FIGURES,
        SHEETS,
        f"{R}/report.html",
        f"{R}/README.md",


onsuccess:
    table = Path(R, "tables", "table1.md")
    if "table1" in exp.tables and table.exists():
        logger.info(
            f"\n{table.read_text()}\nEverything on one page: {R}/report.html"
            f"\nWhich file is what: {R}/README.md"
        )


onerror:
    logger.error(
        "A job failed; its log above says why. What is finished is kept: mend the cause and run "
        "the same command again. Until then, a report of what there is:\n"
        f"  nsvit report --results {R} --out {R}/partial.html"
    )
