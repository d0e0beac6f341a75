"""Tables and figures of the lambda study, and figures of the records. No torch."""

ATTACKED = bool(attack_series(exp.evaluate.conditions))
CORRUPTED = any(c.is_error for c in exp.evaluate.conditions.values())
EXTRA_TABLES = ["lambda", "closure"] if STUDIED else []
EXTRA_FIGURES = [
    "concept",
    *EXTRA_TABLES,
    *["corruptions"] * CORRUPTED,
    *["radius"] * ATTACKED,
]
TABLES += [
    f"{R}/tables/{n}.{ext}" for n in EXTRA_TABLES for ext in ("csv", "md", "tex")
]
FIGURES += [f"{R}/figures/{n}.{ext}" for n in EXTRA_FIGURES for ext in ("svg", "png")]


rule table_lambda:
    input:
        LAMBDAS,
    output:
        **table("lambda"),
    log:
        f"{R}/logs/table_lambda.log",
    benchmark:
        f"{R}/benchmarks/table_lambda.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_lambda"],
    shell:
        "nsvit table-lambda --spec {params.spec:q} --studies {input:q} --out {output.csv:q} > {log:q} 2>&1"


rule table_closure:
    input:
        CLOSURES,
    output:
        **table("closure"),
    log:
        f"{R}/logs/table_closure.log",
    benchmark:
        f"{R}/benchmarks/table_closure.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_closure"],
    shell:
        "nsvit table-closure --spec {params.spec:q} --closures {input:q} --out {output.csv:q} > {log:q} 2>&1"


rule figure_concept:
    output:
        **figure("concept", "figure_concept"),
    log:
        f"{R}/logs/figure_concept.log",
    benchmark:
        f"{R}/benchmarks/figure_concept.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        recipe=RECIPES["figure_concept"],
    shell:
        "nsvit figure-concept --out {output.svg:q} > {log:q} 2>&1"


rule figure_lambda:
    input:
        f"{R}/tables/lambda.csv",
    output:
        **figure("lambda", "figure_lambda"),
    log:
        f"{R}/logs/figure_lambda.log",
    benchmark:
        f"{R}/benchmarks/figure_lambda.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_lambda"],
    shell:
        "nsvit figure-lambda --spec {params.spec:q} --table {input:q} --out {output.svg:q} > {log:q} 2>&1"


rule figure_closure:
    input:
        f"{R}/tables/closure.csv",
    output:
        **figure("closure", "figure_closure"),
    log:
        f"{R}/logs/figure_closure.log",
    benchmark:
        f"{R}/benchmarks/figure_closure.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_closure"],
    shell:
        "nsvit figure-closure --spec {params.spec:q} --table {input:q} --out {output.svg:q} > {log:q} 2>&1"


rule figure_corruptions:
    input:
        RECORDS,
    output:
        **figure("corruptions", "figure_corruptions"),
    log:
        f"{R}/logs/figure_corruptions.log",
    benchmark:
        f"{R}/benchmarks/figure_corruptions.tsv"
    threads: 1
    resources:
        mem_mb=memory("figure_corruptions"),
        runtime=minutes("figure_corruptions"),
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_corruptions"],
    shell:
        "nsvit figure-corruptions --spec {params.spec:q} --records {input:q} --out {output.svg:q} > {log:q} 2>&1"


rule figure_radius:
    input:
        f"{R}/scores.parquet",
    output:
        **figure("radius", "figure_radius"),
    log:
        f"{R}/logs/figure_radius.log",
    benchmark:
        f"{R}/benchmarks/figure_radius.tsv"
    threads: 1
    resources:
        mem_mb=memory("figure_radius"),
        runtime=minutes("figure_radius"),
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_radius"],
    shell:
        "nsvit figure-radius --spec {params.spec:q} --scores {input:q} --out {output.svg:q} > {log:q} 2>&1"
