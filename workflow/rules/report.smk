"""Tables and figures, from records and sidecars alone; none of these imports torch."""

RUNS = exp.runs()
HISTORIES = [f"{R}/runs/{m}/{a}/seed{s}/history.json" for m, a, s in RUNS]
RECORDS = [
    path
    for m, a in dict.fromkeys((m, a) for m, a, _ in RUNS)
    for path in manifests(m, a)
]
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

TABLE_NAMES = ["table1", "nullity", "runs"] + ["influence"] * bool(INFLUENCE)
FIGURE_NAMES = (
    [f"nullspace_{m}" for m in exp.models]
    + ["influence"] * bool(INFLUENCE)
    + ["dynamics"] * bool(MOVING)
)
TABLES = [
    f"{R}/tables/{name}.{ext}" for name in TABLE_NAMES for ext in ("csv", "md", "tex")
]
FIGURES = [
    f"{R}/figures/{name}.{ext}" for name in FIGURE_NAMES for ext in ("svg", "png")
]


rule table1:
    input:
        RECORDS,
    output:
        **table("table1"),
    log:
        f"{R}/logs/table1.log",
    benchmark:
        f"{R}/benchmarks/table1.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table1"],
    shell:
        "nsvit table1 --spec {params.spec:q} --records {input:q} --out {output.csv:q}"
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


rule table_runs:
    input:
        HISTORIES,
    output:
        **table("runs"),
    log:
        f"{R}/logs/table_runs.log",
    benchmark:
        f"{R}/benchmarks/table_runs.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        spec=spec(specs.table),
        recipe=RECIPES["table_runs"],
    shell:
        "nsvit table-runs --spec {params.spec:q} --histories {input:q} --out {output.csv:q}"
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
