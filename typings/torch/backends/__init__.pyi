from . import mkldnn as mkldnn
from . import mps as mps
from . import quantized as quantized
