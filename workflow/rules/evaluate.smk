"""Evaluation: one row per sample and condition."""


rule evaluate:
    input:
        model=f"{R}/runs/{{model}}/{{arm}}/seed{{seed}}/model.safetensors",
        indices=indices(exp.evaluate.conditions.values()),
    output:
        f"{R}/records/{{model}}/{{arm}}/seed{{seed}}.parquet",
    log:
        f"{R}/logs/evaluate/{{model}}/{{arm}}/seed{{seed}}.log",
    benchmark:
        f"{R}/benchmarks/evaluate/{{model}}/{{arm}}/seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=720,
        gpu=1,
    params:
        spec=spec(specs.evaluate, "model", "arm", "seed"),
        recipe=RECIPES["evaluate"],
    shell:
        "nsvit evaluate --spec {params.spec:q} --model {input.model:q}"
        " --indices {input.indices:q} --out {output:q} --threads {threads} > {log:q} 2>&1"


# Every round of a run on subsets, for the figure only: no round is ever chosen by it.
rule dynamics:
    input:
        history=lambda w: f"{R}/runs/{w.model}/{w.arm}/seed{exp.dynamics.seed}/history.json",
        indices=indices(exp.evaluate.conditions.values()),
    output:
        f"{R}/dynamics/{{model}}/{{arm}}.parquet",
    log:
        f"{R}/logs/dynamics/{{model}}/{{arm}}.log",
    threads: 1
    resources:
        mem_mb=4000,
        runtime=720,
        gpu=1,
    params:
        spec=spec(specs.dynamics, "model", "arm"),
        recipe=RECIPES["dynamics"],
    shell:
        "nsvit dynamics --spec {params.spec:q} --run {input.history:q}"
        " --indices {input.indices:q} --out {output:q} --threads {threads} > {log:q} 2>&1"
