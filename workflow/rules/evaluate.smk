"""Evaluation: one row per sample and condition; all seeds of an arm in one job, decoded once."""


rule evaluate:
    input:
        models=lambda w: [
            f"{R}/runs/{w.model}/{w.arm}/seed{seed}/model.safetensors"
            for seed in exp.seeds(w.model, w.arm)
        ],
        indices=indices(exp.evaluate.conditions.values()),
    output:
        f"{R}/records/{{model}}/{{arm}}.parquet",
    log:
        f"{R}/logs/evaluate/{{model}}/{{arm}}.log",
    benchmark:
        f"{R}/benchmarks/evaluate/{{model}}/{{arm}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=720,
        gpu=1,
    params:
        spec=spec(specs.evaluate, "model", "arm"),
        recipe=RECIPES["evaluate"],
    shell:
        "nsvit evaluate --spec {params.spec:q} --models {input.models:q}"
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
    benchmark:
        f"{R}/benchmarks/dynamics/{{model}}/{{arm}}.tsv"
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
