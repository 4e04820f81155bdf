from . import mkldnn as mkldnn
from . import mps as mps
