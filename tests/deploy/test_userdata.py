"""What an instance does at boot, with every other party played by a small program: the metadata service, Lambda,
CloudFormation and the package manager. The zip and its hash are real."""

import base64
import hashlib
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deploy.given import given

_MACHINES = {"aarch64": ("arm64", "c7g.large"), "x86_64": ("x86_64", "c7i.large")}
_AGENT = "opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"

#: Each writes its command line into `calls`.
_FAKES = {
    # PUT: a token; the id only for who shows that token; the layer for who has its address.
    "curl": """
        case "$*" in
        *"-X PUT"*"X-aws-ec2-metadata-token-ttl-seconds"*) echo TOKEN ;;
        *"X-aws-ec2-metadata-token: TOKEN"*/meta-data/instance-id) echo i-0a1b2c3d4e5f60718 ;;
        *--output*https://layers.example/it)
            while [ "$1" != --output ]; do shift; done
            cp "$PLACE/layer.zip" "$2" ;;
        *) exit 22 ;;
        esac""",
    "aws": """
        case "$*" in
        "lambda get-layer-version-by-arn"*Content.Location*) echo https://layers.example/it ;;
        "lambda get-layer-version-by-arn"*Content.CodeSha256*) cat "$PLACE/hash" ;;
        "elbv2 describe-target-health"*"--target-group-arn "*:targetgroup/*"--targets Id=i-0a1b2c3d4e5f60718 "*)
            echo once >>"$PLACE/looks"
            if [ "$(wc -l <"$PLACE/looks")" -gt "$(cat "$PLACE/initial")" ]; then echo healthy; else echo initial; fi ;;
        "cloudformation signal-resource"*) if [ -e "$PLACE/nobody-waits" ]; then exit 254; fi ;;
        *) exit 252 ;;
        esac""",
    "dnf": """
        if [ -e "$PLACE/no-repository" ]; then exit 1; fi
        mkdir -p "$PLACE/opt/aws/amazon-cloudwatch-agent/bin"
        cp /bin/true "$PLACE/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
        ln -s "$REAL_PYTHON" "$PLACE/bin/python3.13" """,
    "uname": 'cat "$PLACE/machine"',
    "sleep": "",
}
_INSTALL = """
echo "install.sh $*" >>"$PLACE/calls"
test ! -e "$PLACE/broken" || exit 1
"""


def user_data(**values: str) -> str:
    text: str = given(**values).resources["WorkerLaunchTemplate"].properties["LaunchTemplateData"]["UserData"]
    return text


class Instance:
    """A machine that boots: all its programs lie in one folder, and so does what they answer."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._bin = place / "bin"
        self._bin.mkdir()
        for name, body in _FAKES.items():
            self.program(name, f'echo "{name} $*" >>"$PLACE/calls"\n{body}')
        self.write("machine", platform.machine())
        self.write("initial", "2")  # looks of the load balancer before the worker is healthy
        with zipfile.ZipFile(place / "layer.zip", "w") as archive:
            archive.writestr("python/image/install.sh", _INSTALL)
        self.write("hash", base64.b64encode(hashlib.sha256((place / "layer.zip").read_bytes()).digest()).decode())

    def program(self, name: str, body: str) -> None:
        (self._bin / name).write_text(f"#!/bin/bash\n{body}\n")
        (self._bin / name).chmod(0o755)

    def write(self, name: str, text: str = "") -> None:
        """Change what a program answers."""
        (self.place / name).write_text(text)

    def bake(self) -> None:
        """Make it one that starts from an image with the packages in it, and no package manager."""
        (self._bin / "dnf").unlink()
        (self._bin / "python3.13").symlink_to(sys.base_prefix + "/bin/python3.13")
        (self.place / _AGENT).parent.mkdir(parents=True)
        self.program(f"../{_AGENT}", "")

    def boot(self, **values: str) -> tuple[int, str]:
        """Run the user data of a stack of these values; its exit code, and the last line on the console."""
        architecture, instance_type = _MACHINES[platform.machine()]
        script = user_data(WorkerArchitecture=architecture, InstanceType=instance_type, **values)
        done = subprocess.run(
            ["bash", "-c", script.replace("/opt/aws/", f"{self.place}/opt/aws/")],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                "PATH": f"{self._bin}:/usr/bin:/bin",
                "PLACE": str(self.place),
                "REAL_PYTHON": f"{sys.base_prefix}/bin/python3.13",
                "TMPDIR": str(self.place),
            },
        )
        return done.returncode, (done.stdout.splitlines() or [""])[-1]

    @property
    def calls(self) -> list[str]:
        return (self.place / "calls").read_text().splitlines()

    def called(self, program: str) -> list[str]:
        return [call.removeprefix(f"{program} ") for call in self.calls if call.startswith(f"{program} ")]

    @property
    def options(self) -> dict[str, str]:
        """What install.sh was told."""
        (arguments,) = self.called("install.sh")
        words = arguments.split()
        return dict(zip(words[::2], words[1::2], strict=True))

    @property
    def signals(self) -> list[str]:
        """What CloudFormation was told."""
        return [call.split("--status ")[1] for call in self.called("aws") if "signal-resource" in call]


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(tmp_path)


def test_a_fresh_machine_installs_the_packages_then_the_layer_and_signals_success(instance: Instance) -> None:
    code, said = instance.boot()

    assert (code, instance.signals) == (0, ["SUCCESS"]), said
    (packages,) = instance.called("dnf")
    assert packages.endswith("install python3.13 amazon-cloudwatch-agent")
    asked = [call for call in instance.called("aws") if call.startswith("lambda ")]
    assert all(given().ref("WorkerLayer") in call for call in asked) and len(asked) == 2  # where it is, and its hash
    options = instance.options
    bundle = options.pop("--bundle")
    assert options == {
        "--python": str(instance.place / "bin/python3.13"),
        "--config": "ssm:/replay/worker",
        "--service": "replay",
        "--region": "eu-west-1",
        "--logs": "/replay/worker",
        "--metrics-logs": "/replay/worker-metrics",
    }
    assert bundle.endswith("/python") and not Path(bundle).exists()  # tidied up
    told = instance.called("aws")[-1]
    for words_of in (
        "--stack-name arn:aws:cloudformation:",
        "--logical-resource-id WorkerGroup",
        "--unique-id i-0a1b2c3d4e5f60718",
    ):
        assert words_of in told


def test_a_worker_reads_the_settings_that_the_stack_was_given(instance: Instance) -> None:
    instance.bake()
    assert instance.boot(WorkerSettingsParameter="/shop/worker.yaml")[0] == 0
    assert instance.options["--config"] == "ssm:/shop/worker.yaml"


def test_an_image_with_the_packages_needs_no_package_manager(instance: Instance) -> None:
    instance.bake()
    code, said = instance.boot()
    assert (code, instance.signals) == (0, ["SUCCESS"]), said
    assert instance.called("dnf") == []
    assert len(instance.called("install.sh")) == 1


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("hash", "AAAA", "not AAAA"),
        ("machine", "riscv64", "is riscv64"),
        ("broken", "", "install.sh ended with exit code 1"),
        ("no-repository", "", "dnf could not install"),
        ("layer.zip", "damaged", "the layer's hash is"),
        ("initial", "1000", "the load balancer does not find this worker healthy"),
    ],
)
def test_what_fails_is_signalled_with_the_reason_on_the_console(
    instance: Instance, name: str, text: str, reason: str
) -> None:
    instance.write(name, text)
    code, said = instance.boot()
    assert code == 1
    assert said.startswith("worker: ") and reason in said
    assert instance.signals == ["FAILURE"]


def test_the_load_balancer_is_waited_for(instance: Instance) -> None:
    instance.write("initial", "20")
    code, said = instance.boot()
    assert (code, instance.signals) == (0, ["SUCCESS"]), said
    assert len(instance.called("sleep")) == 20


def test_a_wrong_layer_is_never_unpacked(instance: Instance) -> None:
    instance.write("hash", "AAAA")
    instance.boot()
    assert instance.called("install.sh") == []


def test_a_fault_that_nobody_thought_of_is_signalled_too(instance: Instance) -> None:
    """Here the zip's hash is right, and it is no zip."""
    instance.write("layer.zip", "no zip")
    instance.write("hash", base64.b64encode(hashlib.sha256(b"no zip").digest()).decode())
    code, said = instance.boot()
    assert (code, instance.signals) == (1, ["FAILURE"])
    assert "zipfile" in said


def test_a_package_repository_that_is_late_is_waited_for(instance: Instance) -> None:
    late = '[ -e "$PLACE/asked" ] || { touch "$PLACE/asked"; exit 1; }\n'
    instance.program("dnf", f'echo "dnf $*" >>"$PLACE/calls"\n{late}{_FAKES["dnf"]}')
    code, _ = instance.boot()
    assert (code, instance.signals) == (0, ["SUCCESS"])
    assert len(instance.called("dnf")) == 2


def test_what_is_late_in_an_instances_first_minute_is_asked_again(instance: Instance) -> None:
    """Credentials of a new role, CloudFormation in a throttled account: each call fails once."""
    late = 'once="$PLACE/late-$1-$2-${*: -3:1}"; [ -e "$once" ] || { touch "$once"; exit 255; }\n'
    instance.program("aws", f'echo "aws $*" >>"$PLACE/calls"\n{late}{_FAKES["aws"]}')
    code, said = instance.boot()
    assert (code, instance.signals) == (0, ["SUCCESS"] * 2), said
    assert all("--fail --retry 5 " in call for call in instance.called("curl"))
    assert all("--region eu-west-1 " in call for call in instance.called("aws"))


def test_an_image_with_python_alone_gets_the_agent(instance: Instance) -> None:
    instance.bake()
    (instance.place / _AGENT).unlink()
    instance.program("dnf", 'echo "dnf $*" >>"$PLACE/calls"')
    assert instance.boot()[0] == 0
    (packages,) = instance.called("dnf")
    assert packages.endswith("install python3.13 amazon-cloudwatch-agent")


def test_a_failure_is_told_before_nobody_waits_any_more(instance: Instance) -> None:
    """Fifteen minutes (test_fleet), of which packages, layer and install need some."""
    instance.write("initial", "1000")
    instance.boot()
    assert 300 <= sum(float(seconds) for seconds in instance.called("sleep")) <= 600


def test_a_layer_that_cannot_be_fetched_is_named(instance: Instance) -> None:
    (instance.place / "layer.zip").unlink()
    code, said = instance.boot()
    assert (code, instance.signals) == (1, ["FAILURE"])
    assert "the layer could not be fetched" in said


def test_a_group_that_scales_out_by_itself_waits_for_no_signal(instance: Instance) -> None:
    instance.write("nobody-waits")
    code, said = instance.boot()
    assert code == 0
    assert "waits for no signal" in said
    assert set(instance.signals) == {"SUCCESS"}


def test_the_script_is_clean_and_small() -> None:
    script = user_data()
    # What Fn::Sub puts in makes conditions constant (2050, 2194), and needs no quotes (2086).
    done = subprocess.run(
        ["shellcheck", "--exclude=SC2050,SC2194,SC2086", "-"],
        input=script,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert len(script.encode()) < 16_384  # EC2's limit
