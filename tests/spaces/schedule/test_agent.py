"""Agents: who moves them, and the history that travels with the weights."""

import json

import pytest

from spaces import Entry, Genome, ImageSpec, Phase, Policy, RequestError, Schedule
from spaces.schedule.agent import Agent

A, B, C = (Genome(Policy((Entry("Rotate", 3, level),))) for level in range(3))
REPLAY = Schedule((Phase(2, A), Phase(1, B), Phase(2, A)), "student", ImageSpec(8, 1, (0,)))


def trained(agent, epochs):
    for _ in range(epochs):
        agent.advance()
    return agent


def test_a_fresh_agent():
    agent = Agent(A)
    assert (agent.epoch, agent.history, agent.genome) == (0, (), A)


def test_the_history_joins_epochs_under_the_same_genome():
    agent = trained(Agent(A), 3)
    agent.set_genome(B)
    agent.set_genome(C)  # nothing was trained under B
    trained(agent, 1)
    agent.set_genome(Genome(C.policy))
    trained(agent, 1)
    agent.set_genome(A)
    assert agent.genome == A
    assert agent.history == (Phase(3, A), Phase(2, C))
    assert agent.epoch == 5
    trained(agent, 1)
    assert agent.history == (Phase(3, A), Phase(2, C), Phase(1, A))


def test_a_replay_follows_its_schedule_and_becomes_its_history():
    agent = Agent(REPLAY)
    for epoch in range(REPLAY.epochs):
        assert agent.genome == REPLAY.at(epoch)
        agent.advance()
    assert agent.history == REPLAY.phases


def test_a_replay_ends_with_its_schedule():
    agent = trained(Agent(REPLAY), REPLAY.epochs)
    with pytest.raises(RequestError, match="from 0 to 4 for this schedule, got 5"):
        agent.advance()
    with pytest.raises(RequestError, match="from 0 to 4 for this schedule, got 5"):
        _ = agent.genome
    assert agent.history == REPLAY.phases, "and the history stands"


def test_a_replay_obeys_no_scheduler():
    agent = trained(Agent(REPLAY), 1)
    with pytest.raises(
        RequestError, match=r"^the genome of an agent that replays a schedule must not be set, got Genome"
    ) as e:
        agent.set_genome(C)
    assert len(str(e.value).splitlines()) == 1
    assert agent.genome == A
    assert trained(agent, 2).genome == A
    assert agent.history == (Phase(2, A), Phase(1, B))


def test_set_source_keeps_the_history():
    agent = trained(Agent(C), 2)
    agent.set_source(REPLAY)
    assert agent.history == (Phase(2, C),)
    assert agent.genome == B, "a schedule is entered at the epoch reached"
    with pytest.raises(RequestError):
        agent.set_genome(A)
    agent.set_source(A)
    agent.set_genome(C)
    assert trained(agent, 1).history == (Phase(3, C),)


def test_the_state_is_plain_data_and_gives_the_history_back():
    agent = trained(Agent(REPLAY), 4)
    state = agent.state_dict()
    assert state == [
        {"epochs": 2, "genome": A.to_json()},
        {"epochs": 1, "genome": B.to_json()},
        {"epochs": 1, "genome": A.to_json()},
    ]
    other = Agent(REPLAY)
    other.load_state_dict(json.loads(json.dumps(state)))
    assert (other.history, other.epoch, other.genome) == (agent.history, 4, A)
    assert other.state_dict() == state


def test_loading_a_state_leaves_the_mover():
    state = trained(Agent(REPLAY), 3).state_dict()
    searching = trained(Agent(C), 7)
    searching.load_state_dict(state)
    assert searching.genome == C
    assert searching.history == (Phase(2, A), Phase(1, B)), "its own history is gone: the weights are the other's"
    searching.set_genome(B)
    assert trained(searching, 1).history == (Phase(2, A), Phase(2, B))


def test_an_interrupted_replay_is_an_uninterrupted_one():
    whole = trained(Agent(REPLAY), 5)
    for stop in range(6):
        resumed = Agent(REPLAY)
        resumed.load_state_dict(trained(Agent(REPLAY), stop).state_dict())
        assert trained(resumed, 5 - stop).state_dict() == whole.state_dict()


def test_a_copied_state_is_no_longer_tied_to_its_agent():
    agent = trained(Agent(A), 1)
    state = agent.state_dict()
    trained(agent, 1)
    assert state == [{"epochs": 1, "genome": A.to_json()}]


@pytest.mark.parametrize(
    "state", [[{"epochs": 0, "genome": A.to_json()}], [{"epochs": 1, "genome": {}}], [{"epochs": 1, "genome": None}]]
)
def test_a_broken_state_leaves_the_history_as_it_is(state):
    agent = trained(Agent(A), 2)
    with pytest.raises(RequestError):
        agent.load_state_dict(state)
    assert agent.history == (Phase(2, A),)
