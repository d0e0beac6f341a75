"""The plan of a run and the page about it; included last, when every caption is known."""


# First of all jobs, so that the report of an unfinished run can say what is missing.
rule plan:
    output:
        f"{R}/plan.json",
    log:
        f"{R}/logs/plan.log",
    benchmark:
        f"{R}/benchmarks/plan.tsv"
    priority: 100
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=specs.plan(
            exp,
            captions("tables", TABLE_NAMES + EXTRA_TABLES),
            captions("figures", FIGURE_NAMES + EXTRA_FIGURES),
            text_of("contact_sheet"),
        ).model_dump_json(),
        recipe=RECIPES["plan"],
    shell:
        "nsvit plan --spec {params.spec:q} --out {output:q} > {log:q} 2>&1"


# Its inputs are what it is complete with; the verb itself makes do with what there is.
rule report:
    input:
        f"{R}/plan.json",
        TABLES,
        FIGURES,
        SHEETS,
    output:
        html=f"{R}/report.html",
        readme=f"{R}/README.md",
    log:
        f"{R}/logs/report.log",
    benchmark:
        f"{R}/benchmarks/report.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        results=lambda w, output: str(Path(output.html).parent),
        recipe=RECIPES["report"],
    shell:
        "nsvit report --results {params.results:q} --readme {output.readme:q}"
        " --out {output.html:q} > {log:q} 2>&1"
