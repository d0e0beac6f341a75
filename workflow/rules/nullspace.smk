"""The exact nullspace of the patch embedding."""


rule nullspace:
    input:
        model=f"{R}/models/{{model}}/model.safetensors",
        index=index(exp.data.val),
    output:
        basis=f"{R}/nullspace/{{model}}/nullspace.safetensors",
        sidecar=f"{R}/nullspace/{{model}}/nullspace.json",
    log:
        f"{R}/logs/nullspace/{{model}}.log",
    benchmark:
        f"{R}/benchmarks/nullspace/{{model}}.tsv"
    threads: 1
    resources:
        mem_mb=memory("nullspace", "model"),
        runtime=minutes("nullspace", "model"),
    params:
        spec=spec(specs.nullspace, "model"),
        recipe=RECIPES["nullspace"],
    shell:
        "nsvit nullspace --spec {params.spec:q} --model {input.model:q} --index {input.index:q}"
        " --out {output.basis:q} --threads {threads} > {log:q} 2>&1"


rule nullity:
    output:
        f"{R}/nullspace/nullity.csv",
    log:
        f"{R}/logs/nullity.log",
    benchmark:
        f"{R}/benchmarks/nullity.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        spec=spec(specs.nullity),
        recipe=RECIPES["nullity"],
    shell:
        "nsvit nullity --spec {params.spec:q} --out {output:q} > {log:q} 2>&1"
