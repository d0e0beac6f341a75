"""What is refused before the first job goes to a SLURM cluster."""

import pytest

from nsvit import cluster
from nsvit.errors import NsvitError

#: As `sinfo -h -o '%P|%G'` prints it: a partition may have several lines.
LISTING = "cpu*|(null)\ngpu|gpu:a100:4(S:0-1)\nmixed|(null)\nmixed|gpu:v100:2\n"


def test_what_fits_is_accepted():
    cluster.check({"render": None, "finetune": "gpu"}, {"finetune"}, LISTING)
    cluster.check({"render": "cpu,mixed", "finetune": "cpu, mixed"}, {"finetune"}, LISTING)


@pytest.mark.parametrize("name", ["nowhere", "cpu*", "gpu,nowhere"])
def test_a_partition_that_is_not_there_is_refused_with_those_that_are(name):
    with pytest.raises(NsvitError, match=r"rule scan: .* no partition .*cpu, gpu, mixed"):
        cluster.check({"scan": name}, set(), LISTING)


def test_no_partition_where_the_cluster_has_no_default_is_refused():
    with pytest.raises(NsvitError, match="rule scan names no partition .*default-resources"):
        cluster.check({"scan": None}, set(), LISTING.replace("*", ""))


def test_a_gpu_where_there_is_none_is_refused():
    with pytest.raises(NsvitError, match="rule finetune asks for a GPU and partition cpu has none"):
        cluster.check({"finetune": None}, {"finetune"}, LISTING)


def test_commands_that_are_missing_or_fail_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NsvitError, match="sbatch is not in PATH"):
        cluster.check_slurm({}, set())
    for name, text in (("sbatch", ""), ("squeue", ""), ("sinfo", "echo no controller >&2; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(NsvitError, match="sinfo failed: no controller"):
        cluster.check_slurm({}, set())
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'main*|(null)'\n")
    cluster.check_slurm({"scan": "main"}, set())
