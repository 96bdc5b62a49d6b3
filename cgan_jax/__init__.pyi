from cgan_jax.api import GuardError as GuardError
from cgan_jax.api import Interrupted as Interrupted
from cgan_jax.api import Model as Model
from cgan_jax.api import Run as Run
from cgan_jax.api import Samples as Samples
from cgan_jax.api import UsageError as UsageError
from cgan_jax.api import Ways as Ways
from cgan_jax.api import keep_programs as keep_programs
from cgan_jax.api import load as load
from cgan_jax.api import recipe as recipe
from cgan_jax.api import recipes as recipes
from cgan_jax.api import train as train

__version__: str
STARTED: float
