"""What the pinned Home Assistant takes from a device: daemon/tests/home_assistant_schema.json.

Usage: schema.py [--check] FILE

Reads the schemas that its MQTT integration validates discovery messages with, and writes of the platforms that are used here which
keys there are, which of them have to be there, and what they take. With --check it compares instead, and ends with exit code 1 if the
file says something else.
"""

import enum
import json
import re
import sys
from importlib import import_module, metadata

import voluptuous as vol
from homeassistant.components.mqtt import abbreviations, schemas
from homeassistant.components.sensor.const import DEVICE_CLASS_UNITS

PLATFORMS = ["binary_sensor", "button", "event", "image", "number", "sensor", "switch", "update"]
# Home Assistant's validators by their names; what has another name takes anything.
KINDS = {
    "boolean": "boolean",
    "icon": "icon",
    "string": "text",
    "template": "template",
    "valid_publish_topic": "publish_topic",
    "valid_subscribe_topic": "subscribe_topic",
}


def kind(validator):
    """What a key takes: a list of words, or the name of a kind."""
    if isinstance(validator, vol.In):
        return sorted(str(word) for word in validator.container)
    if isinstance(validator, vol.Coerce):
        if isinstance(validator.type, type) and issubclass(validator.type, enum.Enum):
            return sorted(str(member.value) for member in validator.type)
        return "number" if validator.type in (int, float) else "any"
    if isinstance(validator, (vol.All, vol.Any)):
        kinds = [kind(part) for part in validator.validators]
        words = [found for found in kinds if isinstance(found, list)]
        known = [found for found in kinds if found != "any"]
        return (words or known or ["any"])[0]
    return KINDS.get(getattr(validator, "__name__", ""), "any")


def keys(schema):
    """The keys of an object's schema, however it is wrapped."""
    while not isinstance(schema, dict):
        if isinstance(schema, vol.Schema):
            schema = schema.schema
        elif isinstance(schema, vol.All):
            schema = next(part for part in schema.validators if isinstance(part, (dict, vol.Schema, vol.All)))
        else:
            raise TypeError(f"no object: {schema!r}")
    return {
        "keys": {str(key): kind(validator) for key, validator in sorted(schema.items(), key=lambda item: str(item[0]))},
        "required": sorted(str(key) for key in schema if isinstance(key, vol.Required)),
    }


def availability():
    """The schema of one of several availabilities."""
    listed = schemas._MQTT_AVAILABILITY_LIST_SCHEMA.schema
    validator = next(validator for key, validator in listed.items() if str(key) == "availability")
    return keys(next(part for part in validator.validators if isinstance(part, list))[0])


def described():
    platforms = {
        name: keys(import_module(f"homeassistant.components.mqtt.{name}").PLATFORM_SCHEMA_MODERN) for name in PLATFORMS
    }
    message = keys(schemas.DEVICE_DISCOVERY_SCHEMA)
    device = keys(schemas.MQTT_ENTITY_DEVICE_INFO_SCHEMA)
    origin = keys(schemas.MQTT_ORIGIN_INFO_SCHEMA)
    known = {key for part in [message, availability(), *platforms.values()] for key in part["keys"]} | {"platform", "components"}
    short = lambda names: {abbreviation: name for abbreviation, name in sorted(names.items())}
    return {
        "about": {
            "package": "homeassistant",
            "version": metadata.version("homeassistant"),
            "license": metadata.metadata("homeassistant")["License-Expression"],
            "written_by": "tests/home_assistant/schema.py",
        },
        "abbreviations": {a: name for a, name in short(abbreviations.ABBREVIATIONS).items() if name in known},
        "device_abbreviations": short(abbreviations.DEVICE_ABBREVIATIONS),
        "origin_abbreviations": short(abbreviations.ORIGIN_ABBREVIATIONS),
        "shared_options": sorted(schemas.SHARED_OPTIONS),
        "message": message,
        "device": device,
        "origin": origin,
        "availability": availability(),
        "platforms": platforms,
        "sensor_units": {
            str(device_class.value): sorted(str(unit) for unit in units if unit is not None)
            for device_class, units in sorted(DEVICE_CLASS_UNITS.items())
        },
    }


def written(value):
    """As JSON, a list in one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return re.sub(r"\[\n\s+([^\]]*?)\n\s+\]", lambda found: "[" + re.sub(r",\n\s+", ", ", found[1]) + "]", text)


def main():
    *options, path = sys.argv[1:]
    text = written(described())
    if options == ["--check"]:
        with open(path, encoding="utf-8") as file:
            if file.read() != text:
                sys.exit(f"{path} is not what this Home Assistant takes: {sys.argv[0]} {path} writes it anew")
    elif options:
        sys.exit(__doc__)
    else:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
