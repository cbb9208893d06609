"""What every life is born with: imported last by the fork server (`tests.app.lives`), and by nobody else.

A fork server can be told to import, and nothing more; so here an import acts. It loads the model that the
lives' settings name, and has the collector leave alone what there is: looking at it, every life would copy
all the memory that it shares with the others.
"""

from __future__ import annotations

import gc

from priorflow.config import load
from priorflow.learning import model_spec
from tests.app.encoders import small_encoder
from tests.app.lives import frozen_model
from tests.app.traffic import SETTINGS

frozen_model(model_spec(load(overrides={**SETTINGS, "model.encoder": small_encoder()})))
gc.collect()
gc.freeze()
