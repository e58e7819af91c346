"""The smallest task: find the way out of a maze, by text. `python docs/examples/maze.py` ends in minutes on a CPU.

The environment says where the agent stands, the agent says where it goes. Every move costs 1; the optimum is known.
"""

# --- imports
from collections import deque
from dataclasses import dataclass

import numpy as np

from ilqljax.data.dataset import ObservationDataset
from ilqljax.data.tokenizer import CharacterTokenizer
from ilqljax.decoding.generate import DecodeConfig
from ilqljax.decoding.policy import TextPolicy
from ilqljax.envs.base import LanguageEnvironment, LanguageObservation, Policy, interact_environments
from ilqljax.experiments.fit import FitConfig, fit
from ilqljax.models.gpt2 import GPT2, GPT2Config
from ilqljax.models.value_lm import ValueLM, ValueLMConfig

# --- maze
MAZE = """
S.#..
.##.#
.....
.#.#.
...#G
"""
ROWS = MAZE.split()
FREE = {(r, c) for r, row in enumerate(ROWS) for c, cell in enumerate(row) if cell != "#"}
START, GOAL = (next(p for p in FREE if ROWS[p[0]][p[1]] == cell) for cell in "SG")
MOVES = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}
MAX_MOVES = 20


def move(place, direction):
    """Return where a move leads: into a wall, or by an unknown word, nowhere."""
    step = MOVES.get(direction, (0, 0))
    there = (place[0] + step[0], place[1] + step[1])
    return there if there in FREE else place


def measure_distances():
    """Return every place's distance to the goal, by breadth-first search."""
    distances, queue = {GOAL: 0}, deque([GOAL])
    while queue:
        place = queue.popleft()
        for direction in MOVES:  # every move can be undone, so searching from the goal is right
            if (there := move(place, direction)) not in distances:
                distances[there] = distances[place] + 1
                queue.append(there)
    return distances


DISTANCES = measure_distances()


# --- observation
@dataclass(frozen=True)
class MazeObservation(LanguageObservation):
    """Hold the places so far and the moves between them."""

    places: tuple = (START,)
    moves: tuple = ()

    def to_sequence(self):
        """Return places (the environment's words) and moves (the agent's, with their rewards) in turn."""
        sequence = [("ABCDE"[self.places[0][0]] + str(self.places[0][1]), None)]
        for direction, (row, column) in zip(self.moves, self.places[1:], strict=True):
            sequence += [(direction, 0.0 if (row, column) == GOAL else -1.0), ("ABCDE"[row] + str(column), None)]
        return sequence, self.terminal

    @property
    def terminal(self):
        """Say whether the goal is reached or time is up."""
        return self.places[-1] == GOAL or len(self.moves) == MAX_MOVES

    def __str__(self):
        return " ".join(text for text, _ in self.to_sequence()[0])


# --- environment
class MazeEnvironment(LanguageEnvironment):
    """Move the agent."""

    def reset(self):
        """Go back to the start."""
        self.state = MazeObservation()
        return self.state

    def step(self, action):
        """Apply a move."""
        there = move(self.state.places[-1], action)
        self.state = MazeObservation((*self.state.places, there), (*self.state.moves, action))
        return self.state, 0.0 if there == GOAL else -1.0, self.state.terminal

    def is_terminal(self):
        """Say whether the walk is over."""
        return self.state.terminal


# --- walker
class Walker(Policy):
    """Walk towards the goal with probability `p`, else anywhere."""

    def __init__(self, p, seed):
        self.p, self.rng = p, np.random.default_rng(seed)

    def act(self, obs):
        """Return a move."""
        place = obs.places[-1]
        nearer = [d for d in MOVES if DISTANCES[move(place, d)] < DISTANCES[place]]
        return str(self.rng.choice(nearer if self.rng.random() < self.p else list(MOVES)))


def walk(policy, n):
    """Return n walks of a policy and their mean return."""
    played = interact_environments([MazeEnvironment() for _ in range(n)], policy)
    returns = np.array([sum(turn.reward for turn in turns) for _, turns in played])
    return [obs for obs, _ in played], returns


# --- learning
def learn(*, n_walks=1500, steps=400, n_judged=256, seed=0):
    """Train BC, filtered BC and ILQL on a walker's walks; return every policy's mean return."""
    tokenizer = CharacterTokenizer("ABCDE01234udlr", unk=False)
    model = ValueLM(GPT2(GPT2Config(tokenizer.vocab_size, 112, 32, 2, 2, unroll=2)), ValueLMConfig())
    walks, returns = walk(Walker(0.3, seed), n_walks)
    best = [walks[i] for i in np.argsort(-returns, kind="stable")[: n_walks // 5]]

    def train(name, data, *, steps=steps, trunk=None, **loss):
        sizes = {"length_buckets": (108,), "action_buckets": (40,)}
        config = FitConfig(steps=steps, batch_size=16, lr=4e-3, polyak=0.05, loss=loss, **sizes)
        return fit(name, model, ObservationDataset(data, tokenizer), config, seed=seed, trunk=trunk)

    def judge(networks, beta=0.0):
        config = DecodeConfig(max_new_tokens=2, beta=beta)
        options = {"seed": seed, "batch_size": n_judged, "length_buckets": (108,)}
        return float(walk(TextPolicy(model, config, tokenizer, **networks, **options), n_judged)[1].mean())

    bc, filtered = train("bc", walks), train("bc", best)
    loss = {"expectile": 0.8, "discount": 0.99, "cql_weight": 0.25}
    ilql = train("ilql", walks, steps=2 * steps, trunk=bc["params"]["policy"], **loss)
    scores = {"data": float(returns.mean()), "BC": judge(bc), "filtered BC": judge(filtered)}
    return scores | {"ILQL": judge(ilql, beta=16.0), "optimum": 1.0 - DISTANCES[START]}


# --- main
if __name__ == "__main__":
    print("\n".join(f"{name:12} {score:7.2f}" for name, score in learn().items()))
