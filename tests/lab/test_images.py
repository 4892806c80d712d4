"""What an instance runs follows from its image and its user data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.images import AMAZON_LINUX, IMAGES, Duty, Software, UserDataError, duty, settings_of
from tests.deploy import raw

INSTALL = "bash $folder/python/image/install.sh --python $python --config ssm:/replay/worker \\\n  --service replay"


def test_each_image_has_its_software() -> None:
    assert duty(IMAGES["web"], "") == Duty(Software.WEB)
    assert duty(IMAGES["test"], "") == Duty(Software.TEST)
    assert duty(IMAGES["plain"], "") == Duty(Software.NOTHING)
    assert duty(IMAGES["worker"], INSTALL) == Duty(Software.WORKER, "/replay/worker")
    assert len(set(IMAGES.values()) | set(AMAZON_LINUX)) == 5
    assert all(len(image) == len("ami-") + 17 for image in IMAGES.values())


@pytest.mark.parametrize("image", [*AMAZON_LINUX, "ami-0123456789abcdef0"])
def test_user_data_makes_a_worker_of_any_other_image(image: str) -> None:
    assert duty(image, INSTALL) == Duty(Software.WORKER, "/replay/worker")
    assert duty(image, "#!/bin/bash\ndnf --assumeyes install nginx\n") == Duty(Software.NOTHING)


def test_the_templates_own_user_data_is_read() -> None:
    (template,) = raw.resources("AWS::EC2::LaunchTemplate").values()
    text = template["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"][0].replace(
        "${SettingsName}", "/replay/worker"
    )

    assert settings_of(text) == "/replay/worker"


@pytest.mark.parametrize(
    "text", ["bash install.sh --config ssm:", "bash install.sh", f"{INSTALL}\n{INSTALL.replace('/replay', '/other')}"]
)
def test_a_worker_without_one_name_for_its_settings_is_refused(text: str) -> None:
    with pytest.raises(UserDataError, match="--config ssm:NAME"):
        duty(IMAGES["worker"], text)


@given(st.text(), st.text(), st.from_regex(r"[-._/A-Za-z0-9]{1,40}", fullmatch=True))
def test_the_name_is_found_whatever_stands_around_it(before: str, after: str, name: str) -> None:
    text = f"{before.replace('--config', '')}\n/x/install.sh --config ssm:{name} {after.replace('--config', '')}"

    assert duty(AMAZON_LINUX[0], text) == Duty(Software.WORKER, name)
