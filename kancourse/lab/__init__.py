"""What every experiment needs: corpus, tokenizers, batches, training, evaluation, sampling, checkpoints, meters."""
