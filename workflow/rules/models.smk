"""Models under test, and training the embedded ones from scratch."""


rule pretrain_model:
    input:
        train=index(exp.data.train),
        val=index(exp.data.val),
    output:
        config=f"{R}/pretrained/{{name}}/config.json",
        weights=f"{R}/pretrained/{{name}}/model.safetensors",
        sidecar=f"{R}/pretrained/{{name}}/nsvit.json",
    log:
        f"{R}/logs/pretrain_model/{{name}}.log",
    benchmark:
        f"{R}/benchmarks/pretrain_model/{{name}}.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=1,
    params:
        spec=spec(specs.pretrain_model, "name"),
        recipe=RECIPES["pretrain_model"],
    shell:
        "nsvit pretrain-model --spec {params.spec:q} --train {input.train:q} --val {input.val:q}"
        " --out {output.sidecar:q} --threads {threads} > {log:q} 2>&1"


# Target: every model of the section `pretrain`.
rule pretrain:
    input:
        [f"{R}/pretrained/{name}/nsvit.json" for name in exp.pretrain],


rule prepare_model:
    input:
        weights=lambda w: weights_of(exp.models[w.model]),
        index=index(exp.data.train),
    output:
        weights=f"{R}/models/{{model}}/model.safetensors",
        sidecar=f"{R}/models/{{model}}/model.json",
    log:
        f"{R}/logs/prepare_model/{{model}}.log",
    benchmark:
        f"{R}/benchmarks/prepare_model/{{model}}.tsv"
    priority: 20  # a wrong file of weights shows before anything is computed
    threads: 1
    resources:
        mem_mb=memory("prepare_model", "model"),
        runtime=minutes("prepare_model", "model"),
    params:
        spec=spec(specs.prepare_model, "model"),
        recipe=RECIPES["prepare_model"],
    shell:
        "nsvit prepare-model --spec {params.spec:q} --index {input.index:q}"
        " --out {output.weights:q} > {log:q} 2>&1"
