"""A real Home Assistant, a real broker, the real daemon on a real video: do the entities say what the device says?

Usage: run.py --daemon PATH --video PATH --model BUNDLE --key KEY

Starts a mosquitto of its own on a loopback port, the core of Home Assistant with its MQTT integration in this process, and
ternwatchd. Every wait has a deadline and says what it waited for. Ends with exit code 0 if everything was as it should.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import paho.mqtt.client as paho
from homeassistant import auth, bootstrap, config_entries, core, loader
from homeassistant.components.mqtt import abbreviations, discovery, schemas
from homeassistant.const import STATE_OFF, STATE_ON, STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.helpers import device_registry, entity_registry
from homeassistant.setup import async_setup_component
from homeassistant.util.json import json_loads_object

DEADLINE_S = 90
DEVICE = "pi.1"
ZONES = """
[[zones]]
name = "street"
points = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
"""
YARD = """
[[zones]]
name = "back.yard"
points = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]]

[[lines]]
name = "middle"
points = [[0.5, 1.0], [0.5, 0.0]]
"""


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def said(what):
    print(f"ok  {what}", flush=True)


class Complaints(logging.Handler):
    """What Home Assistant warns of: a template that fails, a message that it does not take."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        if record.name.startswith("homeassistant.components.mqtt") or "template" in record.name:
            self.lines.append(f"{record.name}: {record.getMessage()}")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Broker:
    """A mosquitto of our own."""

    def __init__(self, folder):
        self.port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        program = next((p for p in ["/usr/sbin/mosquitto"] if os.path.exists(p)), "mosquitto")
        self.process = subprocess.Popen([program, "-c", config], stderr=subprocess.DEVNULL)
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                check(time.monotonic() < until, "mosquitto does not listen")
                time.sleep(0.05)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Listener:
    """What anybody hears at the broker."""

    def __init__(self, port):
        self.newest = {}
        self.heard = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_message = self.on_message
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def on_message(self, _client, _userdata, message):
        self.newest[message.topic] = message.payload
        self.heard.append((message.topic, message.payload))

    def discoveries(self):
        return [payload for topic, payload in list(self.heard) if topic.startswith("homeassistant/device/")]

    def json(self, topic):
        return json.loads(self.newest.get(topic) or b"{}")


class Daemon:
    """ternwatchd on the video."""

    def __init__(self, arguments, folder, port):
        self.config = folder / "ternwatch.toml"
        self.log = folder / "ternwatchd.log"
        state = folder / "state"
        state.mkdir(exist_ok=True)
        self.base = f"""
[device]
id = "{DEVICE}"
[camera]
name = "door"
source = "video"
[camera.video]
path = "{arguments.video}"
[model]
bundle = "{arguments.model}"
key = "{arguments.key}"
[update]
state_dir = "{state}"
[publish]
statistics_s = 1
[snapshots]
enabled = true
[home_assistant]
enabled = true
[mqtt]
host = "127.0.0.1"
port = {port}
commands = true
"""
        self.program = [arguments.daemon, "--config", str(self.config)]
        self.process = None

    def configure(self, places):
        self.config.write_text(self.base + places)

    def start(self):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.program, stderr=log)

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(10)


async def home_assistant(folder, port):
    """The core and the MQTT integration, and nothing else."""
    (folder / "configuration.yaml").touch()
    hass = core.HomeAssistant(str(folder))
    hass.config.skip_pip = True
    loader.async_setup(hass)
    # A dependency of the MQTT integration; away from the port of a Home Assistant that may run here.
    http = {"http": {"server_host": "127.0.0.1", "server_port": free_port()}}
    hass.config_entries = config_entries.ConfigEntries(hass, http)
    await bootstrap.async_load_base_functionality(hass)
    hass.auth = await auth.auth_manager_from_config(hass, [], [])
    check(await async_setup_component(hass, "homeassistant", {}), "Home Assistant does not start")
    await hass.async_start()
    # It remembers the broker from the last time.
    if hass.config_entries.async_get_entry("mqtt"):
        check(await hass.config_entries.async_setup("mqtt"), "the MQTT integration does not start again")
        return hass
    entry = config_entries.ConfigEntry(
        data={"broker": "127.0.0.1", "port": port, "protocol": "5"},
        options={},
        discovery_keys=MappingProxyType({}),
        domain="mqtt",
        entry_id="mqtt",
        minor_version=2,
        source=config_entries.SOURCE_USER,
        subentries_data=(),
        title="broker",
        unique_id=None,
        version=1,
    )
    await hass.config_entries.async_add(entry)
    check(entry.state is config_entries.ConfigEntryState.LOADED, f"MQTT: {entry.state} {entry.reason}")
    return hass


async def wait_for(what, attempt):
    until = time.monotonic() + DEADLINE_S
    while True:
        result = attempt()
        if result:
            return result
        check(time.monotonic() < until, f"waited {DEADLINE_S} s for {what}")
        await asyncio.sleep(0.05)


class Entities:
    """States by the component's key in the message."""

    def __init__(self, hass, message):
        registry = entity_registry.async_get(hass)
        by_unique_id = {entry.unique_id: entry.entity_id for entry in registry.entities.values()}
        self.hass = hass
        self.ids = {
            key: by_unique_id.get(component["uniq_id"]) for key, component in message["cmps"].items()
        }

    def key(self, start, end=""):
        return next(key for key in self.ids if key.startswith(start) and key.endswith(end))

    def state(self, key):
        state = self.hass.states.get(self.ids[key] or "sensor.none")
        return state and state.state

    def attributes(self, key):
        return self.hass.states.get(self.ids[key]).attributes

    def states(self):
        return {key: self.state(key) for key in self.ids}


def validate(payload):
    """Against Home Assistant's own schemas, as it does it itself."""
    message = json_loads_object(payload)
    discovery._replace_all_abbreviations(message)
    schemas.DEVICE_DISCOVERY_SCHEMA(message)
    known = set(abbreviations.ABBREVIATIONS.values())
    for key, component in message["components"].items():
        platform = component.pop("platform")
        check(component["unique_id"], f"{key} has no unique id")
        module = __import__(f"homeassistant.components.mqtt.{platform}", fromlist=["DISCOVERY_SCHEMA"])
        merged = {**component, "device": message["device"], "origin": message["origin"]}
        discovery._merge_common_device_options(merged, message)
        clean = module.DISCOVERY_SCHEMA(dict(merged))
        # The schema removes what it does not know: nothing of ours may be unknown.
        unknown = set(component) - set(clean)
        check(not unknown, f"{key}: {platform} does not know {unknown} (known: {unknown & known})")
    return len(message["components"])


async def run(arguments, folder, complaints):
    broker = Broker(folder)
    listener = Listener(broker.port)
    daemon = Daemon(arguments, folder, broker.port)
    running = SimpleNamespace(hass=await home_assistant(folder, broker.port))
    try:
        await story(running, lambda: home_assistant(folder, broker.port), listener, daemon)
        check(not complaints.lines, "Home Assistant complains:\n" + "\n".join(complaints.lines))
        said("Home Assistant has nothing to complain of")
    except BaseException:
        print(daemon.log.read_text()[-4000:] if daemon.log.exists() else "", file=sys.stderr)
        print("\n".join(complaints.lines), file=sys.stderr)
        raise
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
        await running.hass.async_stop(force=True)
        listener.client.loop_stop()
        broker.stop()


async def story(running, start_again, listener, daemon):
    hass = running.hass
    daemon.configure(ZONES + YARD)
    daemon.start()
    payload = (await wait_for("the message", listener.discoveries))[-1]
    said(f"{validate(payload)} entities in {len(payload)} bytes pass Home Assistant's schemas")
    message = json.loads(payload)
    await wait_for("all entities", lambda: all(Entities(hass, message).ids.values()))
    entities = Entities(hass, message)

    await they_say_what_the_device_says(entities, listener)
    await they_do_what_they_are_told(hass, entities, listener)
    await they_come_and_go_with_the_daemon(entities, daemon)
    await they_come_and_go_with_the_settings(hass, listener, daemon, entities, message)
    await they_are_told_again(listener)
    await hass.async_stop(force=True)
    running.hass = hass = await start_again()
    await they_are_there_after_a_restart(hass, entities, message)
    await they_are_removed(hass, daemon, message)


async def they_say_what_the_device_says(entities, listener):
    await wait_for("somebody", lambda: entities.state("person") == STATE_ON)
    said(f"{entities.ids['person']} turns on")
    street = entities.key("zone_street", "_occupied")
    await wait_for("somebody in the street", lambda: entities.state(street) == STATE_ON)
    said(f"{entities.ids[street]} turns on")

    in_street = entities.key("zone_street", "_people")
    seen = set()

    def follows():
        counts = listener.json(f"ternwatch/{DEVICE}/door/counts")
        told = (str(counts.get("in_view")), str(counts.get("zones", {}).get("street", {}).get("occupancy")))
        if told == (entities.state("people"), entities.state(in_street)):
            seen.add(told)
        return len(seen) >= 4

    await wait_for("four different counts to be followed", follows)
    said(f"people in view and in the street follow the counts: {sorted(seen)}")

    left, right = entities.key("line_middle", "_left"), entities.key("line_middle", "_right")

    def crossed():
        line = listener.json(f"ternwatch/{DEVICE}/door/counts")["lines"]["middle"]
        told = (str(line["to_left"]), str(line["to_right"]))
        return told == (entities.state(left), entities.state(right)) and told != ("0", "0") and told

    said(f"crossings to the left and right: {await wait_for('a crossing', crossed)}")

    def happened():
        if entities.state("activity") in (STATE_UNKNOWN, STATE_UNAVAILABLE, None):
            return None
        return entities.attributes("activity").get("event_type")

    said(f"an event: {await wait_for('an event', happened)}")

    def measured():
        rate = entities.state("frame_rate")
        latency = entities.state("inference_latency")
        numbers = [value for value in (rate, latency) if value not in (STATE_UNKNOWN, STATE_UNAVAILABLE, None)]
        return len(numbers) == 2 and all(float(value) > 0 for value in numbers) and (rate, latency)

    said(f"frames a second and latency: {await wait_for('statistics', measured)}")
    check(float(entities.state("memory")) > 1e6, entities.state("memory"))
    check(int(entities.state("events_waiting")) >= 0, entities.state("events_waiting"))
    temperature = entities.state("temperature")
    told = listener.json(f"ternwatch/{DEVICE}/statistics").get("temperature_c")
    check((temperature == STATE_UNKNOWN) == (told is None), f"temperature {temperature}, told {told}")
    check(entities.state("camera") == STATE_OFF, f"camera problem: {entities.state('camera')}")
    model = listener.json(f"ternwatch/{DEVICE}/model")["running"]
    check(entities.state("model") == STATE_OFF, f"model: {entities.state('model')}")
    installed = entities.attributes("model")
    check(installed["installed_version"] == str(model["version"]), installed)
    check(installed["title"] == model["name"], installed)
    said(f"the model is up to date: {installed['title']} {installed['installed_version']}")
    others = {k: v for k, v in entities.states().items() if v in (STATE_UNAVAILABLE, None)}
    check(not others, f"unavailable: {others}")

    # An update on its way, as the device would tell of it.
    busy = {
        "schema": 1,
        "state": "downloading",
        "job": "job",
        "model": {"name": "person", "version": model["version"] + 1, "sha256": "0" * 64},
        "progress": {"received": 30, "total": 120},
        "running": model,
    }
    listener.client.publish(f"ternwatch/{DEVICE}/model", json.dumps(busy), qos=1)
    await wait_for("the update to be seen", lambda: entities.state("model") == STATE_ON)
    update = entities.attributes("model")
    check(update["in_progress"] is True and update["update_percentage"] == 25, dict(update))
    check(update["latest_version"] == str(model["version"] + 1), dict(update))
    done = {**busy, "state": "committed", "running": busy["model"]}
    del done["progress"]
    listener.client.publish(f"ternwatch/{DEVICE}/model", json.dumps(done), qos=1)
    await wait_for("the update to be over", lambda: entities.state("model") == STATE_OFF)
    update = entities.attributes("model")
    check(update["in_progress"] is False and update["update_percentage"] is None, dict(update))
    said("an update is seen with its progress, and when it is over")

    # A camera that is away, as the device would tell of it.
    camera = {"schema": 1, "camera": "door", "state": "away", "reason": "unplugged", "since": "2026-11-24T06:00:00.000000Z"}
    topic = f"ternwatch/{DEVICE}/door/state"
    listener.client.publish(topic, json.dumps(camera), qos=1)
    await wait_for("the camera's problem", lambda: entities.state("camera") == STATE_ON)
    check(entities.attributes("camera")["reason"] == "unplugged", dict(entities.attributes("camera")))
    await wait_for("no person without a camera", lambda: entities.state("person") == STATE_UNAVAILABLE)
    check(entities.state("frame_rate") != STATE_UNAVAILABLE, "statistics need no camera")
    listener.client.publish(topic, json.dumps({**camera, "state": "ok"}), qos=1)
    await wait_for("the camera back", lambda: entities.state("person") != STATE_UNAVAILABLE)
    said("a camera that is away is a problem, and its entities are unavailable meanwhile")


async def they_do_what_they_are_told(hass, entities, listener):
    async def call(domain, service, key):
        target = {"entity_id": entities.ids[key]}
        await hass.services.async_call(domain, service, target, blocking=True)

    def responses():
        return [payload for topic, payload in list(listener.heard) if topic.endswith("/command/response")]

    await call("button", "press", "take_snapshot")
    await wait_for("the answer to the button", responses)
    check(json.loads(responses()[-1])["ok"] is True, responses()[-1])
    newest = lambda: listener.newest.get(f"ternwatch/{DEVICE}/door/snapshot")
    await wait_for("a picture", newest)
    image = hass.data["image"].get_entity(entities.ids["snapshot"])
    await wait_for("the picture in Home Assistant", lambda: image._last_image == newest())
    check((await image.async_image()).startswith(b"\xff\xd8\xff"), "the picture is no JPEG")
    check(image.content_type == "image/jpeg", image.content_type)
    said(f"the button gives a picture of {len(newest())} bytes")

    detection = f"ternwatch/{DEVICE}/door/detection"
    for service, state in (("turn_off", STATE_OFF), ("turn_on", STATE_ON)):
        await call("switch", service, "detection")
        on = state == STATE_ON
        await wait_for(f"detection to be {state}", lambda: listener.json(detection).get("on") is on)
        await wait_for("the switch to show it", lambda: entities.state("detection") == state)
    said("the switch turns detection off and on")

    check(float(entities.state("threshold")) == 0, entities.state("threshold"))
    for value in (0.35, 0):
        target = {"entity_id": entities.ids["threshold"], "value": value}
        await hass.services.async_call("number", "set_value", target, blocking=True)
        await wait_for("the threshold", lambda: float(entities.state("threshold")) == value)
    said("the number changes the threshold and shows it")


async def they_come_and_go_with_the_daemon(entities, daemon):
    daemon.end(signal.SIGKILL)
    await wait_for(
        "all entities to be unavailable", lambda: set(entities.states().values()) == {STATE_UNAVAILABLE}
    )
    said(f"all {len(entities.ids)} entities are unavailable when the daemon is killed")
    daemon.start()
    await wait_for("no entity to be unavailable", lambda: STATE_UNAVAILABLE not in entities.states().values())
    await wait_for("somebody again", lambda: entities.state("person") == STATE_ON)
    said("all come back with it")


async def they_come_and_go_with_the_settings(hass, listener, daemon, entities, message):
    registry = entity_registry.async_get(hass)
    gone = [key for key in entities.ids if key.startswith(("zone_back_yard", "line_middle"))]
    check(len(gone) == 4, gone)
    daemon.configure(ZONES)
    daemon.process.send_signal(signal.SIGHUP)

    def removed():
        return not any(registry.async_get(entities.ids[key]) for key in gone)

    await wait_for("the zone and the line to go", removed)
    check(entities.state(entities.key("zone_street", "_people")) is not None, "the other zone stays")
    said(f"{len(gone)} entities of a zone and a line go when these are removed on reload")
    daemon.configure(ZONES + YARD)
    daemon.process.send_signal(signal.SIGHUP)
    await wait_for("the zone and the line to come back", lambda: all(Entities(hass, message).ids.values()))
    said("and come back with them")
    # Removed while the daemon is away: read from what the broker has retained.
    daemon.end(signal.SIGTERM)
    daemon.configure(ZONES)
    daemon.start()
    await wait_for("the zone and the line to go", removed)
    said("they go after a restart with other settings too")


async def they_are_told_again(listener):
    before = len(listener.discoveries())
    listener.client.publish("homeassistant/status", "online", qos=1)
    await wait_for("the message again", lambda: len(listener.discoveries()) > before)
    said("the message is published again when Home Assistant says that it was started")


async def they_are_there_after_a_restart(hass, before, message):
    after = Entities(hass, message)
    # The zone and the line that are no more were removed before.
    after.ids = {key: entity for key, entity in after.ids.items() if entity}
    kept = {key: before.ids[key] for key in after.ids}
    check(after.ids == kept and len(kept) == len(before.ids) - 4, f"{before.ids} {after.ids}")

    def here():
        return not {STATE_UNAVAILABLE, None} & set(after.states().values())

    await wait_for("the entities of a Home Assistant that was restarted", here)
    said(f"{len(kept)} entities are there, under the same names, after Home Assistant was restarted")


async def they_are_removed(hass, daemon, message):
    devices = device_registry.async_get(hass)
    identifiers = {("mqtt", message["dev"]["ids"][0])}
    check(devices.async_get_device(identifiers=identifiers), "there is no device")
    # The daemon runs and must stay connected.
    removal = await asyncio.to_thread(
        subprocess.run,
        [*daemon.program, "home-assistant", "remove"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    check(removal.returncode == 0, removal.stderr)
    await wait_for("the device to go", lambda: not devices.async_get_device(identifiers=identifiers))
    check(not any(Entities(hass, message).ids.values()), "entities are left")
    log = daemon.log.read_text()
    check(log.count("no connection to the broker") == 0, log)
    daemon.end(signal.SIGTERM)
    said("`ternwatchd home-assistant remove` removes the device and its entities, and leaves the daemon alone")


def main():
    parser = argparse.ArgumentParser()
    for name in ["daemon", "video", "model", "key"]:
        parser.add_argument(f"--{name}", required=True, type=lambda path: str(Path(path).resolve(strict=True)))
    arguments = parser.parse_args()
    complaints = Complaints()
    shown = logging.StreamHandler()
    shown.setLevel(logging.ERROR)
    logging.basicConfig(level=logging.WARNING, handlers=[shown, complaints])
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(arguments, Path(folder), complaints))


if __name__ == "__main__":
    main()
