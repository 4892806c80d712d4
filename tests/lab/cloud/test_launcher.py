"""The launcher starts the ministack that we know, and no other: each change here is one that an upgrade could bring."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.cloud.emulator import PYTHON, ROOT

CHANGES = {
    "another release": "hooks.PINNED = '1.5.32'",
    "no such action": "del ec2._ACTION_MAP['RunInstances']",
    "an action taken over from us": "ec2._ACTION_MAP['CreateTrafficMirrorTarget'] = ec2._run_instances",
    "an action called otherwise": "ec2._ACTION_MAP['DescribeTags'] = lambda p, region: None",
    "actions elsewhere": "ec2._ACTION_MAP = None",
    "balancers' actions elsewhere": "alb._ACTION_MAP = {}",
    "listeners called otherwise": "alb._ACTION_MAP['DescribeListeners'] = lambda: None",
    "forms read otherwise": "ec2.parse_qs = lambda text: {}",
    "images elsewhere": "del ssm._PUBLIC_AMI_PARAMETERS",
    "types made elsewhere": "del provisioners._RESOURCE_HANDLERS",
    "types made otherwise": "provisioners._RESOURCE_HANDLERS['AWS::ElasticLoadBalancingV2::LoadBalancer'] = {}",
    "a type of its own": "provisioners._RESOURCE_HANDLERS['AWS::EC2::TrafficMirrorTarget'] = {}",
    "tags of stacks elsewhere": "del provisioners._STACK_TAG_PROPERTY",
    "replacements elsewhere": "del provisioners._REPLACING_PROPERTIES",
    "alarms recorded elsewhere": "del provisioners._cw_metric_alarm_record",
    "requests handled otherwise": "cloudformation.handle_request = lambda scope: None",
    "no provisioning by that name": "del stacks._provision_keeping_seed",
    "updates called otherwise": "stacks._update_keeping_seed = lambda kind, name: None",
    "conditions under another name": "engine._conditions = vars(engine).pop('_evaluate_conditions')",
    "conditions somewhere else": "handlers._evaluate_conditions = lambda template, params: {}",
    "conditions in one more place": "provisioners._evaluate_conditions = engine._evaluate_conditions",
    "targets invoked under another name": "eventbridge._deliver = vars(eventbridge).pop('_invoke_target')",
    "targets invoked otherwise": "eventbridge._invoke_target = lambda target, event: None",
    "IAM called otherwise": "iam_evaluator.enforce = lambda access_key_id, iam_action: None",
    "IAM imported by name": "app.enforce = iam_evaluator.enforce",
    "resources found elsewhere": "del iam_actions.extract_resource_arn",
    "refusals worded otherwise": "iam_actions.access_denied_response = lambda service, action: None",
    "another operator": "iam_evaluator._CONDITION_OPS['arnlike'] = lambda actual, expected: False",
    "operators elsewhere": "iam_evaluator._CONDITION_OPS = ()",
    "attributes described otherwise": "ec2._ACTION_MAP['DescribeInstanceAttribute'] = lambda: None",
    "instances stopped otherwise": "ec2._ACTION_MAP['StopInstances'] = lambda p, force: None",
    "no start of instances": "del ec2._ACTION_MAP['StartInstances']",
    "parameters put otherwise": "ssm._put_parameter = lambda name, value: None",
    "parameters deleted under another name": "ssm._delete = vars(ssm).pop('_delete_parameter')",
    "many parameters deleted otherwise": "ssm._delete_parameters = lambda names: None",
    "health described otherwise": "alb._ACTION_MAP['DescribeTargetHealth'] = lambda params, query: None",
    "groups resized otherwise": "autoscaling._reconcile_instances = lambda asg, desired: None",
    "groups' calls elsewhere": "del autoscaling._ACTION_MAP",
    "groups of stacks made otherwise": "provisioners._RESOURCE_HANDLERS['AWS::AutoScaling::AutoScalingGroup'] = {}",
    "threads chosen otherwise": "stacks._runs_on_worker_thread = lambda: True",
}
OF_IAM = {name for name in CHANGES if "iam_" in CHANGES[name]}
#: What only a live emulator needs as it was.
OF_LIFE = {
    "instances stopped otherwise",
    "no start of instances",
    "parameters put otherwise",
    "parameters deleted under another name",
    "many parameters deleted otherwise",
    "health described otherwise",
    "groups resized otherwise",
    "groups' calls elsewhere",
    "groups of stacks made otherwise",
    "threads chosen otherwise",
}

#: Imports ministack once, and tries each change in a process of its own.
PROGRAM = """
import json, os, sys
from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import alb, autoscaling, cloudformation, ec2, eventbridge, ssm
from ministack.services.cloudformation import changesets, engine, handlers, provisioners, stacks
from lab.cloud import authority, conditions, delivery, hooks, launcher, provisioning

def outcome(change, mode):
    try:
        exec(change)
        launcher.application(mode == "auth", mode == "live")
    except hooks.StrangeMinistack as error:
        return f"refused: {error}"
    except Exception as error:
        return repr(error)
    return "started"

for change, mode in json.load(sys.stdin):
    if os.fork() == 0:
        print(json.dumps([change, mode, outcome(change, mode)]), flush=True)
        os._exit(0)
    os.wait()
"""


def needed_by(name: str) -> str:
    return "auth" if name in OF_IAM else "live" if name in OF_LIFE else ""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], str]:
    """By the change, if any, and the mode: with IAM enforced, or live, only what concerns that is tried."""
    asked = [("", mode) for mode in ("", "auth", "live")] + [(change, "") for change in CHANGES.values()]
    asked += [(CHANGES[name], needed_by(name)) for name in CHANGES if needed_by(name)]
    scratch = str(tmp_path_factory.mktemp("launcher"))
    path = f"{ROOT}:{ROOT / 'layers/mirroring'}"
    environment = {"HOME": scratch, "TMPDIR": scratch, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": path}
    command, given = [str(PYTHON), "-c", PROGRAM], json.dumps(asked)
    done = subprocess.run(
        command, cwd=Path(scratch), env=environment, input=given, capture_output=True, text=True, check=True
    )
    return {(change, mode): said for change, mode, said in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("mode", ["", "auth", "live"])
def test_the_pinned_one_starts(outcomes: Mapping[tuple[str, str], str], mode: str) -> None:
    assert outcomes["", mode] == "started"


@pytest.mark.parametrize("name", CHANGES)
def test_another_does_not(outcomes: Mapping[tuple[str, str], str], name: str) -> None:
    assert outcomes[CHANGES[name], needed_by(name)].startswith("refused: ")


def test_what_iam_or_life_alone_needs_may_be_anything_without_it(outcomes: Mapping[tuple[str, str], str]) -> None:
    assert {outcomes[CHANGES[name], ""] for name in OF_IAM | OF_LIFE} == {"started"}
