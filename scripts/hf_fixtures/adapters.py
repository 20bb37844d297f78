"""Adapters of PEFT on the tiny models of other families."""

import torch
import transformers as tf

from hf_fixtures.common import case, sequence, write_adapter
from hf_fixtures.text import IDS


def llama(folder, **options):
    import peft

    base = tf.LlamaForCausalLM.from_pretrained(folder.parent / "llama-biases").float().eval()
    config = peft.LoraConfig(r=3, lora_alpha=6.0, target_modules=["q_proj", "down_proj"], **options)
    model = peft.get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter * (1 + 0.2 * noise) if "magnitude" in name else 0.3 * noise)
    write_adapter(folder, model, [case(sequence([IDS[:n]])[0]) for n in (12, 5)])


MODELS = {
    "peft-lora": llama,
    "peft-dora": lambda folder: llama(folder, use_dora=True, use_rslora=True),
}
PUBLISHED = {}
