from collections.abc import Mapping

MODEL_FOR_MASKED_LM_MAPPING_NAMES: Mapping[str, str]
