from tests.distributed.conftest import *
def test_it(outcomes):
    for n, o in outcomes.items(): print(n, o.code, o.seconds, "\n".join(l[:400] for l in o.output.splitlines()[-45:]))
    import shutil; shutil.rmtree("/tmp/processes/outs", ignore_errors=True); shutil.copytree(outcomes[1].out.parent, "/tmp/processes/outs")
    assert 0
