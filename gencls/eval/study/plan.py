"""The plan of one call of a study, and its differences from an earlier plan, in words."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import Any

from torch import nn

from gencls.core import GenclsError, Key, key_of
from gencls.eval.attacks import Attack
from gencls.eval.judgement.runner import Runner
from gencls.eval.judgement.trial import ADDRESS, Protocol
from gencls.eval.study.settings import made_by
from gencls.eval.threats.protocol import Threat, bare

_NEUTRAL = {"streams": "rows"}
"""Settings of a protocol that are left out, because older studies know no other value."""

_LONGEST = 80
"""Most characters of a setting in study.json."""


@dataclass(frozen=True)
class Plan:
    """The request of one call to a folder, without its cells.

    Attributes:
        defenses: defenses with their keys, by name.
        attacks: attacks with their keys as :func:`without_epsilon`, by name.
        threats: threats of the attacks without bound and target, by their key in the records.
        hashes: keys of the samples of the call. The folder may hold some of them.
        shard_size: number of samples per shard, for samples that are new in the folder.
        protocol: settings of the protocol that decide results, without the seed.
        code: digest of the code that attacks and judges.
        about: facts about the study for the report.
    """

    defenses: Mapping[str, tuple[nn.Module, Key]]
    attacks: Mapping[str, tuple[Attack, Key]]
    threats: Mapping[str, tuple[Threat, Key]]
    hashes: Sequence[str]
    shard_size: int
    protocol: Mapping[str, Any]
    code: str
    about: Mapping[str, str]

    @classmethod
    def of(
        cls,
        defenses: Mapping[str, nn.Module],
        attacks: Mapping[str, Attack],
        hashes: Sequence[str],
        shard_size: int,
        protocol: Protocol,
        about: Mapping[str, str],
    ) -> "Plan":
        """The plan of a call.

        Raises:
            GenclsError: for a defense or an attack that hides its content from a key.
        """
        threats = {attack.threat.norm: bare(attack.threat) for attack in attacks.values()}
        return cls(
            defenses={name: (module, key_of(module, f"defense {name}")) for name, module in defenses.items()},
            attacks={name: (attack, key_of(without_epsilon(attack), f"attack {name}")) for name, attack in attacks.items()},
            threats={norm: (threat, key_of(threat, f"threat {norm}")) for norm, threat in threats.items()},
            hashes=hashes,
            shard_size=shard_size,
            protocol={name: value for name, value in relevant(protocol).items() if name != "seed"},
            code=key_of((Runner, Protocol), "gencls").whole,
            about=about,
        )

    def made_by(self, defense: str, attack: str) -> str:
        """Digest of the code that computes a row of this defense and this attack."""
        return made_by(self.code, self.defenses[defense][1].whole, self.attacks[attack][1].whole)


def check_grid(defenses: Mapping[str, object], attacks: Mapping[str, object], seeds: Sequence[int], shard_size: int) -> None:
    """Check the parts of a call.

    Raises:
        GenclsError: for an empty grid, or repeated seeds.
    """
    if not defenses or not attacks or not seeds or shard_size < 1:
        raise GenclsError(
            "study: expected at least one defense, attack and seed and shard_size >= 1, "
            f"got {len(defenses)}, {len(attacks)}, {len(seeds)} and {shard_size}"
        )
    if len(set(seeds)) < len(seeds):  # each sample would count once per mention of a seed
        raise GenclsError(f"study: expected different seeds, got {', '.join(map(str, seeds))}")


def relevant(protocol: Protocol) -> dict[str, Any]:
    """The settings of a protocol that decide results. With streams of rows, memory decides only about speed."""
    neutral = {"memory": protocol.memory, **_NEUTRAL}
    return {name: value for name, value in asdict(protocol).items() if name not in neutral or value != neutral[name]}


def without_epsilon(value: Any) -> Any:
    """A copy of an attack without epsilon in its threat models, also in attacks that it holds; only for its key."""
    if isinstance(value, Threat):
        return replace(value, epsilon=None)
    if isinstance(value, nn.Module | type) or not (is_dataclass(value) or hasattr(value, "threat")):
        return value
    names = [field.name for field in fields(value)] if is_dataclass(value) else ["threat"]
    changed = {name: new for name in names if (new := without_epsilon(old := getattr(value, name, None))) is not old}
    if not changed:
        return value
    twin = copy.copy(value)
    try:
        for name, new in changed.items():
            object.__setattr__(twin, name, new)
    except (AttributeError, TypeError):  # a computed threat, so another epsilon counts as another setting
        return value
    return twin


def described(value: Any, key: Key) -> dict[str, Any]:
    """The description of a defense, an attack or a threat in study.json, which later shows the changes."""
    words: dict[str, Any] = {"kind": type(value).__name__, "content": key.content}
    if isinstance(value, nn.Module):
        tensors = tuple(chain(value.named_parameters(), value.named_buffers()))
        layers = tuple((name, *tensor.shape) for name, tensor in tensors)
        words |= {"settings": dict(_settings_of(value))}
        words |= {"layers": key_of(layers, "layers").content, "weights": key_of(tensors, "weights").content}
    elif is_dataclass(value):
        twin = without_epsilon(value)
        words["settings"] = {field.name: _words(getattr(twin, field.name)) for field in fields(value) if field.repr}
    else:
        words["settings"] = {}
    return words


def _settings_of(module: nn.Module) -> Iterator[tuple[str, str]]:
    """The plain attributes of a module and its submodules, without torch's own."""
    for path, part in module.named_modules():
        if not type(part).__module__.startswith("torch."):
            for name, value in vars(part).items():
                if not name.startswith("_") and name != "training" and isinstance(value, bool | int | float | str | None):
                    yield ".".join(filter(None, (path, name))), _words(value)


def _words(value: Any) -> str:
    words = ADDRESS.sub("", repr(value))
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."


def differences(found: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    """The changes to the meaning of existing rows, in words."""
    yield from other_protocol(found, plan)
    for kind, parts in (("defense", plan.defenses), ("attack", plan.attacks), ("threat", plan.threats)):
        for name, (value, key) in parts.items():
            known = found.get(f"{kind}s", {}).get(name)  # older studies name no threats
            if known and known["content"] != key.content:
                yield from (f"{kind} {name} {said}" for said in _changes(known, described(value, key)))


def other_protocol(found: Mapping[str, Any], plan: Plan) -> Iterator[str]:
    """The changes to the protocol, in words."""
    was, now = _NEUTRAL | found["protocol"], _NEUTRAL | dict(plan.protocol)
    for name in was | now:
        if was.get(name) != now.get(name):
            yield f"{name} was {was.get(name)} and is now {now.get(name)}"


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if old["kind"] != new["kind"]:
        yield f"was {old['kind']} and is now {new['kind']}"
        return
    names = [name for name in old["settings"] | new["settings"] if old["settings"].get(name) != new["settings"].get(name)]
    for name in names:
        yield f"had {name} {old['settings'].get(name, 'unset')} and now has {new['settings'].get(name, 'unset')}"
    tensors = next((what for what in ("layers", "weights") if old.get(what) != new.get(what)), None)
    if tensors:
        yield f"has other {tensors}"
    elif not names:
        yield "has other code, or holds something else"
