"""A model of whole crystals learning in rounds: its file after each, and the state that a killed run goes on from."""

from __future__ import annotations

from pathlib import Path

import torch

from generators.checkpoints import save_checkpoint
from generators.crystals.module import CrystalDiffusion

_STATE = "state.pt"


class KeptRounds:
    """``model-NN.pt`` after NN rounds, and ``state.pt``.

    Args:
        module: that learns.
        optimizer: of its denoiser.
        folder: where the files are.
    """

    def __init__(self, module: CrystalDiffusion, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self.module, self.optimizer, self.folder = module, optimizer, folder

    def model(self, number: int) -> Path:
        """The file of the model after so many rounds."""
        return self.folder / f"model-{number:02d}.pt"

    def resume(self) -> int:
        """Rounds done; the model and the optimizer are as they were then. The first time the model is written."""
        path = self.folder / _STATE
        if not path.exists():
            save_checkpoint(self.model(0), "crystal", *self.module.export())
            return 0
        state = torch.load(path, map_location=self.module.device, weights_only=True)
        self.module.denoiser.load_state_dict(state["denoiser"])
        self.module.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["rounds"])

    def keep(self, rounds: int) -> None:
        """Write the model and the state after so many rounds."""
        save_checkpoint(self.model(rounds), "crystal", *self.module.export())
        part = self.folder / f"{_STATE}.part"
        torch.save(
            {
                "rounds": rounds,
                "denoiser": self.module.denoiser.state_dict(),
                "averaged": self.module.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            part,
        )
        part.replace(self.folder / _STATE)
