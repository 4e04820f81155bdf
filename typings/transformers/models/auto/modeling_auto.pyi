from collections.abc import Mapping

MODEL_FOR_MASKED_LM_MAPPING_NAMES: Mapping[str, str]
MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES: Mapping[str, str]
