"""Tables and figures, from records and sidecars alone; none of these imports torch."""

RUNS = exp.runs()
HISTORIES = [f"{R}/runs/{m}/{a}/seed{s}/history.json" for m, a, s in RUNS]
RECORDS = records_of(dict.fromkeys((m, a) for m, a, _ in RUNS))
INFLUENCES = [f"{R}/influence/{m}.parquet" for m in INFLUENCE]
NULLSPACES = [f"{R}/nullspace/{m}/nullspace.json" for m in exp.models]
MOVING = (
    [(m, a) for m in exp.dynamics.models for a in exp.dynamics.arms]
    if exp.dynamics
    else []
)
DYNAMICS = [f"{R}/dynamics/{m}/{a}.parquet" for m, a in MOVING]
DYNAMICS_HISTORIES = [
    f"{R}/runs/{m}/{a}/seed{exp.dynamics.seed}/history.json" for m, a in MOVING
]

TABLE_NAMES = ["claims", *exp.tables, "paired", "attacks", "nullity", "cost"] + [
    "influence"
] * bool(INFLUENCE)
FIGURE_NAMES = (
    [f"nullspace_{m}" for m in exp.models]
    + ["influence"] * bool(INFLUENCE)
    + ["dynamics"] * bool(MOVING)
    + ["claims"]
)
TABLES = [
    f"{R}/tables/{name}.{ext}" for name in TABLE_NAMES for ext in ("csv", "md", "tex")
]
FIGURES = [
    f"{R}/figures/{name}.{ext}" for name in FIGURE_NAMES for ext in ("svg", "png")
]


# All records, read once for the tables and figures that want a score for every picture.
rule scores:
    input:
        RECORDS,
    output:
        f"{R}/scores.parquet",
    log:
        f"{R}/logs/scores.log",
    benchmark:
        f"{R}/benchmarks/scores.tsv"
    threads: 1
    resources:
        mem_mb=memory("scores"),
        runtime=minutes("scores"),
    params:
        spec=spec(specs.table),
        recipe=RECIPES["scores"],
    shell:
        "nsvit scores --spec {params.spec:q} --records {input:q} --out {output:q} > {log:q} 2>&1"


# Every table of accuracies: Table 1 and those of `tables` in the configuration.
rule table:
    input:
        f"{R}/scores.parquet",
    output:
        **table("{table}", caption="table"),
    log:
        f"{R}/logs/table/{{table}}.log",
    benchmark:
        f"{R}/benchmarks/table/{{table}}.tsv"
    threads: 1
    resources:
        mem_mb=memory("table", "table"),
        runtime=minutes("table", "table"),
    params:
        spec=spec(specs.accuracy, "table"),
        recipe=RECIPES["table"],
    shell:
        "nsvit table --spec {params.spec:q} --scores {input:q} --out {output.csv:q}"
        " > {log:q} 2>&1"


rule table_paired:
    input:
        f"{R}/scores.parquet",
    output:
        **table("paired"),
    log:
        f"{R}/logs/table_paired.log",
    benchmark:
        f"{R}/benchmarks/table_paired.tsv"
    threads: 1
    resources:
        mem_mb=memory("table_paired"),
        runtime=minutes("table_paired"),
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_paired"],
    shell:
        "nsvit table-paired --spec {params.spec:q} --scores {input:q} --out {output.csv:q}"
        " > {log:q} 2>&1"


rule table_attacks:
    input:
        RECORDS,
    output:
        **table("attacks"),
    log:
        f"{R}/logs/table_attacks.log",
    benchmark:
        f"{R}/benchmarks/table_attacks.tsv"
    threads: 1
    resources:
        mem_mb=memory("table_attacks"),
        runtime=minutes("table_attacks"),
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_attacks"],
    shell:
        "nsvit table-attacks --spec {params.spec:q} --records {input:q} --out {output.csv:q}"
        " > {log:q} 2>&1"


rule table_nullity:
    input:
        nullity=f"{R}/nullspace/nullity.csv",
        nullspaces=NULLSPACES,
    output:
        **table("nullity"),
    log:
        f"{R}/logs/table_nullity.log",
    benchmark:
        f"{R}/benchmarks/table_nullity.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_nullity"],
    shell:
        "nsvit table-nullity --spec {params.spec:q} --nullity {input.nullity:q}"
        " --nullspaces {input.nullspaces:q} --out {output.csv:q} > {log:q} 2>&1"


rule table_cost:
    input:
        HISTORIES,
    output:
        **table("cost"),
    log:
        f"{R}/logs/table_cost.log",
    benchmark:
        f"{R}/benchmarks/table_cost.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_cost"],
    shell:
        "nsvit table-cost --spec {params.spec:q} --histories {input:q} --out {output.csv:q}"
        " > {log:q} 2>&1"


rule table_influence:
    input:
        INFLUENCES,
    output:
        **table("influence"),
    log:
        f"{R}/logs/table_influence.log",
    benchmark:
        f"{R}/benchmarks/table_influence.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_influence"],
    shell:
        "nsvit table-influence --spec {params.spec:q} --influences {input:q} --out {output.csv:q}"
        " > {log:q} 2>&1"


rule table_claims:
    input:
        claims="nsvit/paper/claims.yaml",
        scores=f"{R}/scores.parquet",
        histories=HISTORIES,
        influences=INFLUENCES,
        lambdas=LAMBDAS,
    output:
        **table("claims"),
    log:
        f"{R}/logs/table_claims.log",
    benchmark:
        f"{R}/benchmarks/table_claims.tsv"
    threads: 1
    resources:
        mem_mb=memory("table_claims"),
        runtime=minutes("table_claims"),
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_claims"],
    shell:
        "nsvit table-claims --spec {params.spec:q} --claims {input.claims:q}"
        " --scores {input.scores:q} --histories {input.histories:q}"
        " --influences {input.influences:q} --lambdas {input.lambdas:q}"
        " --out {output.csv:q} > {log:q} 2>&1"


rule figure_nullspace:
    input:
        f"{R}/nullspace/{{model}}/nullspace.safetensors",
    output:
        **figure("nullspace_{model}", "figure_nullspace"),
    log:
        f"{R}/logs/figure_nullspace/{{model}}.log",
    benchmark:
        f"{R}/benchmarks/figure_nullspace/{{model}}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_nullspace"],
    shell:
        "nsvit figure-nullspace --spec {params.spec:q} --nullspace {input:q} --out {output.svg:q}"
        " > {log:q} 2>&1"


rule figure_influence:
    input:
        f"{R}/tables/influence.csv",
    output:
        **figure("influence", "figure_influence"),
    log:
        f"{R}/logs/figure_influence.log",
    benchmark:
        f"{R}/benchmarks/figure_influence.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_influence"],
    shell:
        "nsvit figure-influence --spec {params.spec:q} --table {input:q} --out {output.svg:q}"
        " > {log:q} 2>&1"


rule figure_dynamics:
    input:
        records=DYNAMICS,
        histories=DYNAMICS_HISTORIES,
    output:
        **figure("dynamics", "figure_dynamics"),
    log:
        f"{R}/logs/figure_dynamics.log",
    benchmark:
        f"{R}/benchmarks/figure_dynamics.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_dynamics"],
    shell:
        "nsvit figure-dynamics --spec {params.spec:q} --records {input.records:q}"
        " --histories {input.histories:q} --out {output.svg:q} > {log:q} 2>&1"


rule figure_claims:
    input:
        f"{R}/tables/claims.csv",
    output:
        **figure("claims", "figure_claims"),
    log:
        f"{R}/logs/figure_claims.log",
    benchmark:
        f"{R}/benchmarks/figure_claims.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["figure_claims"],
    shell:
        "nsvit figure-claims --spec {params.spec:q} --table {input:q} --out {output.svg:q}"
        " > {log:q} 2>&1"
