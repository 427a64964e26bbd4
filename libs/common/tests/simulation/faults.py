"""What strikes the simulated processes, connections and servers."""

from typing import TYPE_CHECKING

from .loop import OUTSIDE, Process

if TYPE_CHECKING:
    from .broker import Broker
    from .store import Store
    from .world import World


def strike(world: "World") -> None:
    world.random.choice((kill, freeze, cut_broker, cut_database, stop_server, refuse, mend))(world)


def _any_process(world: "World") -> Process | None:
    alive = [each for each in world.loop.processes if each.is_role]
    return world.random.choice(alive) if alive else None


def kill(world: "World") -> None:
    if process := _any_process(world):
        world.loop.kill(process)


def freeze(world: "World") -> None:
    if process := _any_process(world):
        seconds = world.random.uniform(0.5, 18)
        process.frozen_until = world.loop.time() + seconds
        world.loop.call_later(seconds, lambda: None, context=OUTSIDE.context)
        world.loop.call_later(15, _end_idle, world, process, context=OUTSIDE.context)


def _end_idle(world: "World", process: Process) -> None:
    """As `idle_in_transaction_session_timeout` does with the sessions of a frozen process."""
    if process.frozen_until > world.loop.time():
        for session in [each for each in world.store.sessions if each.process is process]:
            session.end()


def cut_broker(world: "World") -> None:
    if world.broker.connections:
        noticed_after = world.random.choice((0.0, world.random.uniform(0, 20)))
        world.random.choice(world.broker.connections).cut(noticed_after)


def cut_database(world: "World") -> None:
    if world.store.sessions:
        world.random.choice(world.store.sessions).end()


def stop_server(world: "World") -> None:
    server = world.random.choice((world.store, world.broker))
    server.is_down = True
    for session in [*world.store.sessions] * (server is world.store):
        session.end()
    for connection in [*world.broker.connections] * (server is world.broker):
        connection.cut(0.0)
    world.loop.call_later(world.random.uniform(0.2, 4), _start_server, server, context=OUTSIDE.context)


def _start_server(server: "Store | Broker") -> None:
    server.is_down = False


def refuse(world: "World") -> None:
    world.broker.refusals = world.random.choice((0.0, 0.3, 1.0))


def mend(world: "World") -> None:
    world.is_mended = True
