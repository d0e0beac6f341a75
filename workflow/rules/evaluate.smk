"""Evaluation: one row per sample and condition, one file ("cell") per run and condition."""


# The cells, seed<k>/<condition>.parquet beside the manifest, are not declared as outputs, so that
# Snakemake keeps them when a job fails or is repeated; the verb knows which of them are valid.
rule evaluate:
    input:
        models=evaluated,
        indices=evaluated_on,
        sources=followed,
    output:
        f"{R}/records/{{model}}/{{arm}}/{{job}}.{{part}}.json",
    log:
        f"{R}/logs/evaluate/{{model}}/{{arm}}/{{job}}.{{part}}.log",
    benchmark:
        f"{R}/benchmarks/evaluate/{{model}}/{{arm}}/{{job}}.{{part}}.tsv"
    threads: CORES
    resources:
        mem_mb=memory("evaluate", "model", "arm", "job", "part"),
        runtime=minutes("evaluate", "model", "arm", "job", "part"),
        gpu=CORES,
        nodes=1,
        processes=exp.machine.processes,
    params:
        spec=spec(specs.evaluate, "model", "arm", "job", "part"),
        recipe=RECIPES["evaluate"],
    shell:
        "nsvit evaluate --spec {params.spec:q} --models {input.models:q}"
        " --indices {input.indices:q} --out {output:q} --threads {threads}"
        " --processes {resources.processes} --nodes {resources.nodes} > {log:q} 2>&1"


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
        mem_mb=memory("dynamics", "model", "arm"),
        runtime=minutes("dynamics", "model", "arm"),
        gpu=1,
    params:
        spec=spec(specs.dynamics, "model", "arm"),
        recipe=RECIPES["dynamics"],
    shell:
        "nsvit dynamics --spec {params.spec:q} --run {input.history:q}"
        " --indices {input.indices:q} --out {output:q} --threads {threads} > {log:q} 2>&1"
