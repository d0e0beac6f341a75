"""Approximate nullspace noise at every block, and what it does to held-out predictions."""

INFLUENCE = exp.influence.models if exp.influence else ()


rule learn_noise:
    input:
        model=f"{R}/models/{{model}}/model.safetensors",
        index=index(exp.data.train),
    output:
        directory(f"{R}/noise/{{model}}"),
    log:
        f"{R}/logs/learn_noise/{{model}}.log",
    benchmark:
        f"{R}/benchmarks/learn_noise/{{model}}.tsv"
    priority: 10  # long chains first, so that no core waits at the end
    threads: CORES
    resources:
        mem_mb=memory("learn_noise", "model"),
        runtime=minutes("learn_noise", "model"),
        gpu=CORES,
        nodes=1,
        processes=exp.machine.processes,
    params:
        spec=spec(specs.learn_noise, "model"),
        recipe=RECIPES["learn_noise"],
    shell:
        "nsvit learn-noise --spec {params.spec:q} --model {input.model:q} --index {input.index:q}"
        " --out {output:q} --threads {threads}"
        " --processes {resources.processes} --nodes {resources.nodes} > {log:q} 2>&1"


rule influence:
    input:
        model=f"{R}/models/{{model}}/model.safetensors",
        index=index(exp.data.train),
        noise=f"{R}/noise/{{model}}",
    output:
        f"{R}/influence/{{model}}.parquet",
    log:
        f"{R}/logs/influence/{{model}}.log",
    benchmark:
        f"{R}/benchmarks/influence/{{model}}.tsv"
    threads: 1
    resources:
        mem_mb=memory("influence", "model"),
        runtime=minutes("influence", "model"),
        gpu=1,
    params:
        spec=spec(specs.influence, "model"),
        recipe=RECIPES["influence"],
    shell:
        "nsvit influence --spec {params.spec:q} --model {input.model:q} --index {input.index:q}"
        " --noise {input.noise:q} --out {output:q} --threads {threads} > {log:q} 2>&1"
