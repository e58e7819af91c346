"""The smallest task: find the way out of a maze, in text. A worked example of a task of your own (docs/custom-task.md).

    python docs/examples/maze.py

A wanderer's walks are cloned (BC), the best of them are cloned (filtered BC), and ILQL learns from all of them which
move is worth what. The optimum is known by search.
"""

from dataclasses import dataclass

import numpy as np

import ilqljax as il
from ilqljax import LanguageEnvironment, LanguageObservation, Policy
from ilqljax.training.compilation import enable_compilation_cache

# Every place has a name of one letter; # is a wall and * the way out.
MAZE = ["ABCDE", "F#G##", "HIJKL", "##M#N", "OPQ#*"]
MOVES = {"<": (0, -1), ">": (0, 1), "^": (-1, 0), "_": (1, 0)}
GOAL, MAX_MOVES = "*", 16
PLACES = {name: (y, x) for y, line in enumerate(MAZE) for x, name in enumerate(line) if name != "#"}
STARTS = sorted(set(PLACES) - {GOAL})


def walk(place: str, move: str) -> str:
    """Return where a move leads: nowhere if a wall is in the way, or if it is not a move."""
    (y, x), (dy, dx) = PLACES[place], MOVES.get(move, (0, 0))
    inside = 0 <= y + dy < len(MAZE) and 0 <= x + dx < len(MAZE[0])
    return MAZE[y + dy][x + dx] if inside and MAZE[y + dy][x + dx] != "#" else place


@dataclass(frozen=True)
class MazeObservation(LanguageObservation):
    """Hold the places seen and the moves made: one place more than moves."""

    places: tuple[str, ...]
    moves: tuple[str, ...] = ()

    def to_sequence(self) -> tuple[list[tuple[str, float | None]], bool]:
        """Return places (said by the environment) and moves (by the agent, each earning -1) in turn."""
        said = [(self.places[0], None)]
        for move, place in zip(self.moves, self.places[1:], strict=True):
            said += [(move, -1.0), (place, None)]
        return said, self.is_over()

    def is_over(self) -> bool:
        """Say whether the walk is over."""
        return self.places[-1] == GOAL or len(self.moves) == MAX_MOVES

    def __str__(self) -> str:
        """Return places and moves as one line."""
        return self.places[0] + "".join(m + p for m, p in zip(self.moves, self.places[1:], strict=True))


class MazeEnvironment(LanguageEnvironment):
    """Walk from a random place until the way out is found."""

    def __init__(self, seed: int):
        """Draw the starts with a seed."""
        self.rng = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> MazeObservation:
        """Start somewhere."""
        self.state = MazeObservation((STARTS[self.rng.integers(len(STARTS))],))
        return self.state

    def step(self, action: str) -> tuple[MazeObservation, float, bool]:
        """Move."""
        places = (*self.state.places, walk(self.state.places[-1], action))
        self.state = MazeObservation(places, (*self.state.moves, action))
        return self.state, -1.0, self.state.is_over()

    def is_terminal(self) -> bool:
        """Say whether the walk is over."""
        return self.state.is_over()


class Wanderer(Policy):
    """Make the best move half of the time, and otherwise any."""

    def __init__(self, seed: int):
        """Draw with a seed."""
        self.rng, self.distances = np.random.default_rng(seed), find_distances()

    def act(self, obs: MazeObservation) -> str:
        """Return a move."""
        best = min(MOVES, key=lambda move: self.distances[walk(obs.places[-1], move)])
        return best if self.rng.random() < 0.5 else str(self.rng.choice(list(MOVES)))


def play(policy: Policy, n: int, *, seed: int) -> list[MazeObservation]:
    """Let a policy walk n times; the starts depend on the seed alone."""
    return [obs for obs, _ in il.interact_environments([MazeEnvironment(seed + i) for i in range(n)], policy)]


def find_distances() -> dict[str, int]:
    """Count the moves from every place to the way out, by breadth-first search."""
    distances, border = {GOAL: 0}, [GOAL]
    while border:
        near = border.pop(0)
        for place in PLACES:
            if place not in distances and near in {walk(place, move) for move in MOVES}:
                distances[place] = distances[near] + 1
                border.append(place)
    return distances


def run(*, n_walks: int = 4000, steps: int = 1500, n_games: int = 512, seed: int = 0) -> dict[str, float]:
    """Return the mean number of moves, negative, of the data, three trained policies, and the optimum."""
    walks = sorted(play(Wanderer(seed), n_walks, seed=1_000_000), key=lambda walked: len(walked.moves))
    tokenizer = il.CharacterTokenizer("".join(PLACES) + "".join(MOVES), unk=False)
    model = il.ValueLM(
        il.GPT2(il.GPT2Config(tokenizer.vocab_size, 80, n_embd=64, n_layer=1, n_head=4)), il.ValueLMConfig()
    )
    buckets = {"length_buckets": (72,), "action_buckets": (2 * MAX_MOVES,)}

    def train(name: str, walks: list[MazeObservation], trunk: dict | None = None, **loss: float) -> il.Fitted:
        how = {"total_steps": steps, "batch_size": 32, "lr": 3e-3, "target": il.TargetConfig(polyak=0.1)}
        settings, rows = il.TrainConfig(**how, **buckets, loss=loss), il.ObservationDataset(walks, tokenizer)
        return il.fit(rows, name, model=model, settings=settings, seed=seed, trunk=trunk)

    def judge(fitted: il.Fitted, beta: float = 0.0) -> float:
        config = il.DecodeConfig(max_new_tokens=2, beta=beta)
        policy = il.TextPolicy(model, config, tokenizer, **fitted.networks, batch_size=n_games, length_buckets=(24, 72))
        return -float(np.mean([len(walked.moves) for walked in play(policy, n_games, seed=0)]))

    bc = train("bc", walks)
    # Without the conservative term, tokens that no walk has (a place where a move should be) keep the values that they
    # were born with, which are higher than those of any move.
    critic = {"expectile": 0.8, "cql_weight": 0.1, "discount": 0.99, "td_lambda": 0.5}
    ilql = train("ilql", walks, bc.networks["params"]["policy"], **critic)
    distances = find_distances()
    return {
        "data": -float(np.mean([len(walked.moves) for walked in walks])),
        "bc": judge(bc),
        "filtered bc": judge(train("bc", walks[: n_walks // 2])),
        "ilql": judge(ilql, beta=2.0),
        "optimum": -float(np.mean([distances[walked.places[0]] for walked in play(Wanderer(0), n_games, seed=0)])),
    }


if __name__ == "__main__":
    enable_compilation_cache()
    for name, value in run().items():
        print(f"{name:<12} {value:7.2f}")
