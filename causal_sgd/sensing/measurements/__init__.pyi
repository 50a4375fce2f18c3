from ._entries import completion as completion
from ._fixed import fixed_design as fixed_design
from ._gaussian import gaussian_law as gaussian_law
from ._gaussian import population as population
from ._gaussian import streamed as streamed
from ._low_rank import low_rank_law as low_rank_law
from ._networks import examples as examples
from ._networks import rank_one as rank_one
