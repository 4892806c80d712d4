from mirroring.environment import Environment, environment_of


def test_everything_that_the_stack_says_is_taken() -> None:
    variables = {
        "MIRROR_OWNER": "replay-prod",
        "POLICY_PARAMETER": "/replay-prod/policy",
        "DEFAULT_POLICY_PARAMETER": "/replay-prod/default",
        "STATE_PARAMETER": "/replay-prod/switch",
        "QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/replay",
        "EVENT_BUS": "security",
        "WORKER_GROUPS": "workers, more-workers,",
        "AUTOTAG_KEYS": "mirror",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/23/[$LATEST]5f0c",
    }
    assert environment_of(variables) == Environment(
        owner="replay-prod",
        policy_parameter="/replay-prod/policy",
        default_policy_parameter="/replay-prod/default",
        state_parameter="/replay-prod/switch",
        queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/replay",
        event_bus="security",
        worker_groups=frozenset({"workers", "more-workers"}),
        autotag_keys=frozenset({"mirror"}),
        container="2026/11/23/[$LATEST]5f0c",
    )


def test_no_key_may_be_put_on_where_the_stack_names_none_and_nobody_knows_where_it_says_nothing() -> None:
    assert environment_of({"AUTOTAG_KEYS": ""}).autotag_keys == frozenset()
    assert environment_of({}).autotag_keys is None


def test_what_is_not_said_follows_from_the_stacks_name() -> None:
    assert environment_of({}) == Environment()
    said = environment_of({"MIRROR_OWNER": "replay-prod", "STATE_PARAMETER": ""})
    assert said.policy_parameter == "/replay-prod/policy"
    assert said.default_policy_parameter == "/replay-prod/policy-default"
    assert said.state_parameter == "/replay-prod/state"
    assert said.event_bus == "default"
    assert said.worker_groups == frozenset()
