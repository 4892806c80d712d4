"""EC2's describe answers about a large account, as XML or as the dicts that botocore makes of it, page by page.

Most sessions are right; every tenth has another filter and is to be changed, every twentieth interface has a foreign
session and none of ours yet, and one in fifty sessions names an instance that is gone.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, cast

from botocore.loaders import create_loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from mirroring.model import CONFIG_TAG, CREATED_TAG, OWNER_TAG, SOURCE_TAG, Session
from mirroring.repair import config_hash

OWNER = "vpc-traffic-replay"
TARGET = "tmt-0aaaaaaaaaaaaaaa1"
FILTER = "tmf-0aaaaaaaaaaaaaaa1"
OTHER = "tmf-0bbbbbbbbbbbbbbb2"
PAGE = 1000
POLICY = f"""
version: 1
limits: {{deletes: 10000, delete_fraction: 1}}
defaults: {{target: {TARGET}, filter: {FILTER}}}
sources:
  - name: canary
    match: {{tags: {{mirror: [canary]}}, groups: ["canary-*"]}}
    vni: 7
  - name: shop
    match: {{tags: {{environment: [production], mirror: "*"}}}}
    except: {{names: ["bastion-*"]}}
"""

type Form = Literal["xml", "dicts"]


def account(interfaces: int) -> Mapping[str, tuple[str, str, Callable[[int], str]]]:
    """Each operation's key, its element, and what makes an item of it, one per interface."""
    sessions = partial(_session, interfaces)
    return {
        "DescribeInstances": ("Reservations", "reservationSet", _instance),
        "DescribeTrafficMirrorSessions": ("TrafficMirrorSessions", "trafficMirrorSessionSet", sessions),
    }


class Account:
    """A client that answers EC2's describes. The CPU time that making the pages takes is counted apart."""

    def __init__(self, interfaces: int, form: Form) -> None:
        self.interfaces = interfaces
        self.pages = 0  # given out
        self.asked: list[tuple[str, str]] = []  # operation and token, of every call
        self.making = 0.0
        self.meta = self
        self.events = self
        self._heard: Callable[..., None] = lambda: None
        self._parse = form == "xml"
        self._operations = account(interfaces)

    def register(self, _: str, handler: Callable[..., None]) -> None:
        """As a client's event system: who counts requests counts these."""
        self._heard = handler

    def describe_instances(self, **arguments: Any) -> dict[str, Any]:
        return self._answer("DescribeInstances", **arguments)

    def describe_traffic_mirror_sessions(self, **arguments: Any) -> dict[str, Any]:
        return self._answer("DescribeTrafficMirrorSessions", **arguments)

    def describe_network_interfaces(self, **_: Any) -> dict[str, Any]:
        """None is managed by a service."""
        return self._given("DescribeNetworkInterfaces", "", {"NetworkInterfaces": []})

    def drain(self) -> None:
        """All pages, parsed and dropped: what anybody must do who asks."""
        for operation in self._operations:
            token = self._answer(operation).get("NextToken")
            while token:
                token = self._answer(operation, NextToken=token).get("NextToken")

    def _answer(self, operation: str, *, NextToken: str = "", **_: Any) -> dict[str, Any]:
        key, element, item = self._operations[operation]
        first = int(NextToken or 0)
        last = min(first + PAGE, self.interfaces)
        token = str(last) if last < self.interfaces else ""
        began = time.process_time()
        if not self._parse:
            items = [_AS_DICTS[operation](self.interfaces, number) for number in range(first, last)]
            answer: dict[str, Any] = {key: items, "NextToken": token}
            self.making += time.process_time() - began
            return self._given(operation, NextToken, answer)
        text = "".join(item(number) for number in range(first, last))
        body = f"<R><requestId>r</requestId><{element}>{text}</{element}><nextToken>{token}</nextToken></R>".encode()
        self.making += time.process_time() - began
        return self._given(operation, NextToken, parsed(operation, body))

    def _given(self, operation: str, token: str, answer: dict[str, Any]) -> dict[str, Any]:
        self.pages += 1
        self.asked.append((operation, token))
        self._heard()
        return answer


_MODEL = ServiceModel(create_loader().load_service_model("ec2", "service-2"))
_PARSER = create_parser("ec2")


def parsed(operation: str, body: bytes) -> dict[str, Any]:
    """As botocore parses an answer of EC2."""
    answer = {"status_code": 200, "headers": {}, "body": body}
    return cast(dict[str, Any], _PARSER.parse(answer, _MODEL.operation_model(operation).output_shape))


# Items


def _is_foreign(number: int) -> bool:
    return number % 20 == 1


def _names(number: int) -> tuple[str, str]:
    return f"i-{number:017x}", f"eni-{number:017x}"


def _tags(number: int) -> dict[str, str]:
    return {
        "Name": f"shop-{number}",
        "environment": "production",
        "mirror": "yes",
        "team": "shop",
        "aws:autoscaling:groupName": f"shop-{number % 40}",
    }


def _xml_tags(tags: Mapping[str, str]) -> str:
    items = "".join(f"<item><key>{key}</key><value>{value}</value></item>" for key, value in tags.items())
    return f"<tagSet>{items}</tagSet>"


_INSTANCE = """<item><reservationId>r-{n:017x}</reservationId><ownerId>123456789012</ownerId><groupSet/>\
<instancesSet><item><instanceId>{instance}</instanceId><imageId>ami-0123456789abcdef0</imageId><instanceState><code>16</code>\
<name>running</name></instanceState><privateDnsName>ip-10-0-0-1.ec2.internal</privateDnsName><dnsName/><reason/>\
<keyName>key</keyName><amiLaunchIndex>0</amiLaunchIndex><productCodes/><instanceType>m5.large</instanceType>\
<launchTime>2026-11-01T08:00:00.000Z</launchTime><placement><availabilityZone>eu-west-1a</availabilityZone><groupName/>\
<tenancy>default</tenancy></placement><monitoring><state>disabled</state></monitoring>\
<subnetId>subnet-0123456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId>\
<privateIpAddress>10.0.0.1</privateIpAddress><sourceDestCheck>true</sourceDestCheck><groupSet><item>\
<groupId>sg-0123456789abcdef0</groupId><groupName>web</groupName></item></groupSet><architecture>x86_64</architecture>\
<rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName><blockDeviceMapping><item>\
<deviceName>/dev/xvda</deviceName><ebs><volumeId>vol-0123456789abcdef0</volumeId><status>attached</status>\
<attachTime>2026-11-01T08:00:01.000Z</attachTime><deleteOnTermination>true</deleteOnTermination></ebs></item>\
</blockDeviceMapping><virtualizationType>hvm</virtualizationType><clientToken>token</clientToken>{tags}\
<hypervisor>xen</hypervisor><networkInterfaceSet><item><networkInterfaceId>{interface}</networkInterfaceId>\
<subnetId>subnet-0123456789abcdef0</subnetId><vpcId>vpc-0123456789abcdef0</vpcId><description/>\
<ownerId>123456789012</ownerId><status>in-use</status><macAddress>02:00:00:00:00:01</macAddress>\
<privateIpAddress>10.0.0.1</privateIpAddress><privateDnsName>ip-10-0-0-1.ec2.internal</privateDnsName>\
<sourceDestCheck>true</sourceDestCheck><groupSet><item><groupId>sg-0123456789abcdef0</groupId>\
<groupName>web</groupName></item></groupSet><attachment><attachmentId>eni-attach-0123456789abcdef0</attachmentId>\
<deviceIndex>0</deviceIndex><status>attached</status><attachTime>2026-11-01T08:00:00.000Z</attachTime>\
<deleteOnTermination>true</deleteOnTermination><networkCardIndex>0</networkCardIndex></attachment>\
<privateIpAddressesSet><item><privateIpAddress>10.0.0.1</privateIpAddress>\
<privateDnsName>ip-10-0-0-1.ec2.internal</privateDnsName><primary>true</primary></item></privateIpAddressesSet>\
<ipv6AddressesSet/><interfaceType>interface</interfaceType></item></networkInterfaceSet><ebsOptimized>true</ebsOptimized>\
<enaSupport>true</enaSupport><cpuOptions><coreCount>1</coreCount><threadsPerCore>2</threadsPerCore></cpuOptions>\
<capacityReservationSpecification><capacityReservationPreference>open</capacityReservationPreference>\
</capacityReservationSpecification><hibernationOptions><configured>false</configured></hibernationOptions>\
<enclaveOptions><enabled>false</enabled></enclaveOptions><metadataOptions><state>applied</state>\
<httpTokens>required</httpTokens><httpPutResponseHopLimit>2</httpPutResponseHopLimit><httpEndpoint>enabled</httpEndpoint>\
</metadataOptions></item></instancesSet></item>"""

_SESSION = """<item><trafficMirrorSessionId>{id}</trafficMirrorSessionId><trafficMirrorTargetId>{target}\
</trafficMirrorTargetId><trafficMirrorFilterId>{filter}</trafficMirrorFilterId><networkInterfaceId>{interface}\
</networkInterfaceId><ownerId>123456789012</ownerId><packetLength>8500</packetLength><sessionNumber>1</sessionNumber>\
<virtualNetworkId>{vni}</virtualNetworkId><description>{instance}</description>{tags}</item>"""


def _instance(number: int) -> str:
    instance, interface = _names(number)
    return _INSTANCE.format(n=number, instance=instance, interface=interface, tags=_xml_tags(_tags(number)))


def _session(interfaces: int, number: int) -> str:
    made = session(interfaces, number)
    return _SESSION.format(
        id=made.id,
        target=made.target,
        filter=made.filter,
        interface=made.interface,
        vni=made.vni,
        instance=made.description,
        tags=_xml_tags(made.tags),
    )


def session(interfaces: int, number: int) -> Session:
    """One per interface, ours but for every twentieth, some of them to be changed or deleted."""
    gone = number % 50 == 2
    instance, interface = _names(number + interfaces if gone else number)
    asked = Session(f"tms-{number:017x}", interface, TARGET, FILTER, 1, None, None, instance)
    tags = {OWNER_TAG: OWNER, SOURCE_TAG: "shop", CREATED_TAG: "2026-11-01T08:00:00Z", CONFIG_TAG: config_hash(asked)}
    return Session(
        asked.id,
        interface,
        TARGET,
        OTHER if number % 10 == 3 else FILTER,
        1,
        number,
        8500,
        instance,
        {"Name": "security"} if _is_foreign(number) else tags,
    )


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _instance_dict(_: int, number: int) -> dict[str, Any]:
    """Like the parsed XML; what is the same for all is shared."""
    reservation = _template("DescribeInstances")
    instance, interface = _names(number)
    attached = reservation["Instances"][0]["NetworkInterfaces"][0] | {"NetworkInterfaceId": interface}
    changed = {"InstanceId": instance, "NetworkInterfaces": [attached], "Tags": _pairs(_tags(number))}
    return reservation | {"Instances": [reservation["Instances"][0] | changed]}


def _session_dict(interfaces: int, number: int) -> dict[str, Any]:
    made = session(interfaces, number)
    return {
        "TrafficMirrorSessionId": made.id,
        "TrafficMirrorTargetId": made.target,
        "TrafficMirrorFilterId": made.filter,
        "NetworkInterfaceId": made.interface,
        "OwnerId": "123456789012",
        "PacketLength": made.packet_length,
        "SessionNumber": made.number,
        "VirtualNetworkId": made.vni,
        "Description": made.description,
        "Tags": _pairs(made.tags),
    }


_AS_DICTS: Mapping[str, Callable[[int, int], dict[str, Any]]] = {
    "DescribeInstances": _instance_dict,
    "DescribeTrafficMirrorSessions": _session_dict,
}
_TEMPLATES: dict[str, dict[str, Any]] = {}


def _template(operation: str) -> dict[str, Any]:
    if operation not in _TEMPLATES:
        key, element, item = account(1)[operation]
        body = f"<R><{element}>{item(0)}</{element}></R>".encode()
        _TEMPLATES[operation] = parsed(operation, body)[key][0]
    return _TEMPLATES[operation]


def expected_pages(interfaces: int) -> Iterator[tuple[str, str]]:
    """Every page once, and the one of the interfaces that services manage."""
    for operation in account(interfaces):
        yield from ((operation, str(first or "")) for first in range(0, interfaces, PAGE))
    yield "DescribeNetworkInterfaces", ""
