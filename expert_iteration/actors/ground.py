"""The ground that the actors of a run stand on: one placement group, and where each actor came to be."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from expert_iteration.actors.silence import WRITING, write_stacks
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.placement.bundles import bundles_of
from expert_iteration.placement.nodes import Node, fits, shortage
from expert_iteration.placement.places import Place, refuse_devices, refuse_model, refuse_storage
from expert_iteration.placement.storage import leave_mark

NODE_LABEL = "ray.io/node-id"
PATIENCE = 5.0
"""Seconds that bundles may take to find room before somebody is told."""

logger = logging.getLogger(__name__)


class Ground:
    """The bundles of one run. `secure` waits until they have found room."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        """Ask for all bundles, on the Ray that was started before; `config.model` is pinned.

        On a cluster, the buffer and the trainers are put on the node of the driver if they fit there.
        """
        self._config, self._run_dir = config, run_dir
        self._alone = config.ray.address is None
        self._here = ray.get_runtime_context().get_node_id()
        self._mark = leave_mark(run_dir)
        self._places: dict[str, Place] = {}
        self._bundles = bundles_of(config)
        self._seats = {seat.part: (seat, i) for i, one in enumerate(self._bundles) for seat in one.seats}
        writers = [bundle for bundle in self._bundles if bundle.writes]
        self._together = self._alone or fits(writers, [node for node in nodes() if node.id == self._here])
        self._group = self._reserve()
        self.secured = False

    def _reserve(self) -> Any:
        """The placement group: packed on as few nodes as possible, each bundle on one."""
        room = [
            {"CPU": bundle.cpus} | ({"GPU": bundle.gpus} if bundle.gpus else {}) for bundle in self._bundles
        ]
        pinned = self._together and not self._alone
        where = [{NODE_LABEL: self._here} if pinned and bundle.writes else {} for bundle in self._bundles]
        return placement_group(room, strategy="PACK", bundle_label_selector=where)

    def seat(self, part: str) -> dict[str, object]:
        """Ray's options that put the actor `part` into its bundle, with the devices of its seat alone."""
        seat, index = self._seats[part]
        return {
            "num_cpus": seat.cpus,
            "num_gpus": seat.gpus,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, index),
        }

    async def secure(self) -> None:
        """Wait until every bundle has found room.

        Raises:
            ConfigError: this machine, where nobody else has any, has too little of it.
            TimeoutError: the cluster had none within `wait_limit`.
        """
        ready = asyncio.ensure_future(_ready(self._group))
        try:
            patience = min(PATIENCE, self._config.wait_limit)
            if not (await asyncio.wait([ready], timeout=patience))[0]:
                self._complain()
                left = self._config.wait_limit - patience
                if not (await asyncio.wait([ready], timeout=left))[0]:
                    raise TimeoutError(
                        f"no room was found in {self._config.wait_limit:.0f} s (wait_limit): "
                        f"{shortage(self._bundles, nodes())}; lower placement.train.devices or "
                        "placement.infer.replicas, or add nodes."
                    )
            ready.result()
        finally:
            ready.cancel()
        self.secured = True
        if not self._together:
            logger.warning(
                "buffer and trainers do not fit on the node of the driver and may be on any: %s has to be on "
                "storage that all of them share.",
                self._run_dir,
            )

    def _complain(self) -> None:
        lacking = shortage(self._bundles, nodes())
        if self._alone:
            raise ConfigError(
                f"this machine has no room for the run: {lacking}; lower placement.train.devices or "
                "placement.infer.replicas, or use placement=one_gpu or placement=cpu."
            )
        if (there := len(nodes())) < self._config.placement.nodes:
            lacking += f"; placement.nodes is {self._config.placement.nodes}, and {there} have joined so far"
        logger.warning("waiting for room: %s.", lacking)

    def admit(self, part: str, place: Place) -> None:
        """Take note of where a part is, and refuse what cannot work there.

        Raises:
            ConfigError: it lacks a device, has one of another part, or does not find the run folder or the
                model.
        """
        seat, _ = self._seats[part]
        others = {name: other for name, other in self._places.items() if name != part}
        refuse_devices(seat, place, others)
        refuse_model(part, place, self._config.model.path)
        shared = refuse_storage(part, place, self._run_dir, self._mark)
        self._places[part] = place
        if place.gpus or not self._alone:
            apart = "" if shared else ", which has a run folder of its own: its log and timeline stay there"
            logger.info("%s is on %s%s.", part, place, apart)

    async def write_stacks(self, found: Sequence[tuple[Place, Path]]) -> set[Path]:
        """Tell processes, by place and log, to write where they stand; returns the logs of those that did."""
        by_node = defaultdict(list)
        for place, log in found:
            by_node[place.node].append((place.pid, log))
        return set().union(*await asyncio.gather(*(self._write_on(*told) for told in by_node.items())))

    async def _write_on(self, node: str, processes: list[tuple[int, Path]]) -> set[Path]:
        if node == self._here:
            return await write_stacks(processes)
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        telling = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_write_stacks)
        try:
            return set(await asyncio.wait_for(telling.remote(processes), WRITING + PATIENCE))
        except (TimeoutError, ray.exceptions.RayError):
            return set()  # that node is not there any more, or as silent as the actor

    def leave(self) -> None:
        """Give back what was reserved; an instance of this run's own ends with it anyway."""
        if not self._alone:
            remove_placement_group(self._group)


async def _ready(group: Any) -> None:
    await group.ready()


def _write_stacks(processes: list[tuple[int, Path]]) -> set[Path]:
    return asyncio.run(write_stacks(processes))


def nodes() -> list[Node]:
    """Those of the cluster that are alive."""
    free = available_resources_per_node()

    def node(one: dict[str, Any]) -> Node:
        has, left = one["Resources"], free.get(one["NodeID"], {})
        return Node(
            one["NodeID"],
            one["NodeManagerAddress"],
            has.get("GPU", 0),
            has.get("CPU", 0),
            left.get("GPU", 0),
            left.get("CPU", 0),
        )

    return [node(one) for one in ray.nodes() if one["Alive"]]
