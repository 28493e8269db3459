"""Network architectures, sized from arguments; no weights and no paths."""

from gencls.zoo.networks.a_vae import AVAE, AVAECritic
from gencls.zoo.networks.architectures import PHOTOS, TABLE_2_1, Architecture, ConvLayer, find_architecture
from gencls.zoo.networks.cifar_resnet import CifarPreActResNet, CifarResNet
from gencls.zoo.networks.cifar_vgg import VGG_GROUPS, CifarVGG
from gencls.zoo.networks.class_conditional_autoencoder import ClassConditionalAutoencoder, ClassDecoders, GaussianEncoder
from gencls.zoo.networks.cnn import CNN
from gencls.zoo.networks.conv_decoder import ConvDecoder
from gencls.zoo.networks.conv_encoder import ConvEncoder
from gencls.zoo.networks.e4e import E4EEncoder
from gencls.zoo.networks.grouped_decoders import DecoderStage, GroupedDecoders
from gencls.zoo.networks.headed_classifier import HeadedClassifier
from gencls.zoo.networks.latent_discriminator import LatentDiscriminator
from gencls.zoo.networks.logistic_mixture import LogisticMixture
from gencls.zoo.networks.nd_vae import NDVAE
from gencls.zoo.networks.normalization import Normalization
from gencls.zoo.networks.nvae import NVAE, adaptive_groups
from gencls.zoo.networks.nvae_nvlabs import NVlabsNVAE
from gencls.zoo.networks.official_abs import official_abs_decoders
from gencls.zoo.networks.small_style_autoencoder import SmallStyleAutoencoder, SmallStyleEncoder
from gencls.zoo.networks.style_autoencoders import E4EAutoencoder, StyleTransformerAutoencoder
from gencls.zoo.networks.style_latents import StyleLatents
from gencls.zoo.networks.style_transformer import StyleTransformerEncoder
from gencls.zoo.networks.stylegan2 import StyleGAN2
from gencls.zoo.networks.stylegan2_discriminator import StyleGAN2Discriminator

__all__ = [
    "AVAE",
    "CNN",
    "NDVAE",
    "NVAE",
    "PHOTOS",
    "TABLE_2_1",
    "VGG_GROUPS",
    "AVAECritic",
    "Architecture",
    "CifarPreActResNet",
    "CifarResNet",
    "CifarVGG",
    "ClassConditionalAutoencoder",
    "ClassDecoders",
    "ConvDecoder",
    "ConvEncoder",
    "ConvLayer",
    "DecoderStage",
    "E4EAutoencoder",
    "E4EEncoder",
    "GaussianEncoder",
    "GroupedDecoders",
    "HeadedClassifier",
    "LatentDiscriminator",
    "SmallStyleAutoencoder",
    "SmallStyleEncoder",
    "StyleGAN2",
    "StyleLatents",
    "StyleGAN2Discriminator",
    "StyleTransformerAutoencoder",
    "StyleTransformerEncoder",
    "LogisticMixture",
    "NVlabsNVAE",
    "Normalization",
    "adaptive_groups",
    "find_architecture",
    "official_abs_decoders",
]
