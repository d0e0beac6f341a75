"""The lambda study, and the closure of the noise it learns."""

STUDIED = exp.lambda_study.models if exp.lambda_study else ()
LAMBDAS = [f"{R}/lambda/{m}.parquet" for m in STUDIED]
CLOSURES = [f"{R}/closure/{m}.parquet" for m in STUDIED]


rule lambda_study:
    input:
        model=f"{R}/models/{{model}}/model.safetensors",
        index=index(exp.data.train),
    output:
        study=f"{R}/lambda/{{model}}.parquet",
        closure=f"{R}/closure/{{model}}.parquet",
    log:
        f"{R}/logs/lambda_study/{{model}}.log",
    benchmark:
        f"{R}/benchmarks/lambda_study/{{model}}.tsv"
    threads: CORES
    resources:
        mem_mb=memory("lambda_study", "model"),
        runtime=minutes("lambda_study", "model"),
        gpu=CORES,
        nodes=1,
        processes=exp.machine.processes,
    params:
        spec=spec(specs.lambda_study, "model"),
        recipe=RECIPES["lambda_study"],
    shell:
        "nsvit lambda-study --spec {params.spec:q} --model {input.model:q} --index {input.index:q}"
        " --closure {output.closure:q} --out {output.study:q} --threads {threads}"
        " --processes {resources.processes} --nodes {resources.nodes} > {log:q} 2>&1"
