"""The hint table agrees with the guide in the rows that people stumble over."""

import pytest

from mirroring.support import may_be_source, sources_per_target


@pytest.mark.parametrize(
    "listed",
    ["m5.large", "t3.micro", "c7i-flex.xlarge", "a1.metal", "m5.metal", "mac2-m2pro.metal", "u7in-16tb.224xlarge"],
)
def test_listed_types_may_be_sources(listed: str) -> None:
    assert may_be_source(listed)


@pytest.mark.parametrize(
    "unlisted", ["t2.micro", "m3.large", "c7gn.large", "m8g.large", "r8i.xlarge", "i7ie.large", ""]
)
def test_other_families_may_not(unlisted: str) -> None:
    assert not may_be_source(unlisted)


@pytest.mark.parametrize("metal", ["m6i.metal", "m7i.metal-24xl", "c5n.metal", "i3en.metal", "u-6tb1.metal"])
def test_bare_metal_is_a_list_of_its_own(metal: str) -> None:
    """Their families are listed, but only for virtualized sizes."""
    assert not may_be_source(metal)
    assert may_be_source(metal.partition(".")[0] + ".large")


@pytest.mark.parametrize(
    ("instance_type", "sources"),
    [
        ("m5.24xlarge", 100),
        ("c5.18xlarge", 100),
        ("hpc8a.96xlarge", 100),
        ("p5.4xlarge", 100),
        ("m8g.48xlarge", 100),  # a target may be of a family that cannot be a source
        ("m5.12xlarge", 10),
        ("m5.metal", 10),
        ("c6i.24xlarge", 10),
        ("t3.micro", 10),
        ("", 10),
    ],
)
def test_sources_per_target(instance_type: str, sources: int) -> None:
    assert sources_per_target(instance_type) == sources
