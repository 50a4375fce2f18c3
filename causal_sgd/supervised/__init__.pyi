from . import data as data
from . import estimators as estimators
from . import losses as losses
from . import measurements as measurements
from . import metrics as metrics
from . import models as models
from . import nonstationary as nonstationary
from . import worlds as worlds
