"""The gallery's mappings with weights, and where those lie in the folder of published data."""

#: By the mapping's name; a path of `tests.gallery.shared.data`, or of `--data`.
CHECKPOINTS = {
    "dtln": "dtln/breizhn+DTLN/model.h5",
    "dtln_saved_model": "dtln/breizhn+DTLN/DTLN_norm_40h_saved_model",
    "ffn": "ffn-fib25/google+ffn/models/fib25/model.ckpt-27465036",
    "fsrcnn_x2": "fsrcnn/Saafke+FSRCNN_Tensorflow/CKPT_dir/x2/fsrcnn_ckpt",
    "fsrcnn_x3": "fsrcnn/Saafke+FSRCNN_Tensorflow/CKPT_dir/x3/fsrcnn_ckpt",
    "kws": "mlperf-tiny/mlcommons+tiny/keyword_spotting/trained_models/kws_ref_model",
    "madry": "",  # the mapping's own, in the repository
    "resnet8": "mlperf-tiny/mlcommons+tiny/image_classification/trained_models/pretrainedResnet.h5",
    "tensor2tensor": "t2t-transformer/tensorflow+tensor2tensor/transformer_test_ckpt/model.ckpt-1",
    "toy_bert": "toy-transformers/CyberZHG+keras-bert/test_checkpoint/bert_model.ckpt",
    "toy_gpt2": "toy-transformers/CyberZHG+keras-gpt-2/toy_checkpoint/model.ckpt",
    "toy_xlnet_empty": "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_empty/xlnet_model.ckpt",
    "toy_xlnet_pre": "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_pre/xlnet_model.ckpt",
    "toy_xlnet_tune": "toy-transformers/CyberZHG+keras-xlnet/test_checkpoint_tune/xlnet_model.ckpt",
    "ultralight_rfb": "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB/tf/export_models/RFB",
    "ultralight_slim": "ultralight-face/Linzaer+Ultra-Light-Fast-Generic-Face-Detector-1MB/tf/export_models/slim",
    "vww": "mlperf-tiny/mlcommons+tiny/visual_wake_words/trained_models/vww_96.h5",
}
