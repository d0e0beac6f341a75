"""Finetuning: every arm through one loop."""


rule finetune:
    input:
        model=f"{R}/models/{{model}}/model.safetensors",
        index=index(exp.data.train),
    output:
        weights=f"{R}/runs/{{model}}/{{arm}}/seed{{seed}}/model.safetensors",
        sidecar=f"{R}/runs/{{model}}/{{arm}}/seed{{seed}}/model.json",
        history=f"{R}/runs/{{model}}/{{arm}}/seed{{seed}}/history.json",
    log:
        f"{R}/logs/finetune/{{model}}/{{arm}}/seed{{seed}}.log",
    benchmark:
        f"{R}/benchmarks/finetune/{{model}}/{{arm}}/seed{{seed}}.tsv"
    priority: 10  # long chains first, so that no core waits at the end
    threads: CORES
    resources:
        mem_mb=memory("finetune", "model", "arm", "seed"),
        runtime=minutes("finetune", "model", "arm", "seed"),
        gpu=CORES,
        nodes=1,
        processes=exp.machine.processes,
    params:
        spec=spec(specs.finetune, "model", "arm", "seed"),
        recipe=RECIPES["finetune"],
    shell:
        "nsvit finetune --spec {params.spec:q} --model {input.model:q} --index {input.index:q}"
        " --out {output.history:q} --threads {threads}"
        " --processes {resources.processes} --nodes {resources.nodes} > {log:q} 2>&1"
