"""Network architectures, sized from arguments; no weights and no paths."""

from gencls.zoo.networks.abs.class_conditional_autoencoder import ClassConditionalAutoencoder, ClassDecoders, GaussianEncoder
from gencls.zoo.networks.abs.conv_decoder import ConvDecoder
from gencls.zoo.networks.abs.grouped_decoders import DecoderStage, GroupedDecoders
from gencls.zoo.networks.abs.latent_discriminator import LatentDiscriminator
from gencls.zoo.networks.abs.official import official_abs_decoders
from gencls.zoo.networks.autoencoders.code_posterior import CodePosterior
from gencls.zoo.networks.autoencoders.generative_autoencoder import GenerativeAutoencoder
from gencls.zoo.networks.autoencoders.regularizers.adversarial import Adversarial
from gencls.zoo.networks.autoencoders.regularizers.base import CodeRegularizer
from gencls.zoo.networks.autoencoders.regularizers.kl_divergence import KLDivergence
from gencls.zoo.networks.autoencoders.regularizers.mmd import MMD
from gencls.zoo.networks.autoencoders.regularizers.shapiro_wilk import ShapiroWilk
from gencls.zoo.networks.autoencoders.regularizers.total_correlation import TotalCorrelation
from gencls.zoo.networks.autoencoders.single_level import SingleLevel
from gencls.zoo.networks.classifiers.cifar_network import Normalization
from gencls.zoo.networks.classifiers.cifar_resnet import CifarPreActResNet, CifarResNet
from gencls.zoo.networks.classifiers.cifar_vgg import VGG_GROUPS, CifarVGG
from gencls.zoo.networks.classifiers.cnn import CNN, ConvEncoder
from gencls.zoo.networks.classifiers.headed_classifier import HeadedClassifier
from gencls.zoo.networks.gans.biggan import BigGAN
from gencls.zoo.networks.gans.encoder import ResNetEncoder
from gencls.zoo.networks.gans.fq_discriminator import FQDiscriminator
from gencls.zoo.networks.gans.projection_discriminator import ProjectionDiscriminator
from gencls.zoo.networks.gans.self_modulated import SelfModulatedGenerator
from gencls.zoo.networks.nvae.logistic_mixture import LogisticMixture
from gencls.zoo.networks.nvae.nvae import NVAE, adaptive_groups
from gencls.zoo.networks.nvae.nvlabs import NVlabsNVAE
from gencls.zoo.networks.parts.architectures import PHOTOS, TABLE_2_1, Architecture, ConvLayer, find_architecture
from gencls.zoo.networks.purifiers.a_vae import AVAE, AVAECritic
from gencls.zoo.networks.purifiers.nd_vae import NDVAE
from gencls.zoo.networks.stylegan.autoencoders import E4EAutoencoder, StyleTransformerAutoencoder
from gencls.zoo.networks.stylegan.discriminator import StyleGAN2Discriminator
from gencls.zoo.networks.stylegan.e4e import E4EEncoder
from gencls.zoo.networks.stylegan.latents import StyleLatents
from gencls.zoo.networks.stylegan.small_autoencoder import SmallStyleAutoencoder, SmallStyleEncoder
from gencls.zoo.networks.stylegan.style_transformer import StyleTransformerEncoder
from gencls.zoo.networks.stylegan.stylegan2 import StyleGAN2

__all__ = [
    "AVAE",
    "CNN",
    "MMD",
    "NDVAE",
    "NVAE",
    "PHOTOS",
    "TABLE_2_1",
    "VGG_GROUPS",
    "AVAECritic",
    "Adversarial",
    "Architecture",
    "BigGAN",
    "CifarPreActResNet",
    "CifarResNet",
    "CifarVGG",
    "ClassConditionalAutoencoder",
    "ClassDecoders",
    "CodePosterior",
    "CodeRegularizer",
    "ConvDecoder",
    "ConvEncoder",
    "ConvLayer",
    "DecoderStage",
    "E4EAutoencoder",
    "E4EEncoder",
    "FQDiscriminator",
    "GaussianEncoder",
    "GenerativeAutoencoder",
    "GroupedDecoders",
    "HeadedClassifier",
    "KLDivergence",
    "LatentDiscriminator",
    "ProjectionDiscriminator",
    "ResNetEncoder",
    "SelfModulatedGenerator",
    "ShapiroWilk",
    "SingleLevel",
    "SmallStyleAutoencoder",
    "SmallStyleEncoder",
    "StyleGAN2",
    "StyleLatents",
    "StyleGAN2Discriminator",
    "StyleTransformerAutoencoder",
    "StyleTransformerEncoder",
    "TotalCorrelation",
    "LogisticMixture",
    "NVlabsNVAE",
    "Normalization",
    "adaptive_groups",
    "find_architecture",
    "official_abs_decoders",
]
