from . import contradiction as contradiction
