from tts.data.batches import TrainingBatches
from tts.data.store import FeatureStore


def test_store_opens(features, tiny):
    store = FeatureStore.open(features)
    assert len(store.train) + len(store.held_out) == 20
    store.check(tiny)
    batch = TrainingBatches(store, store.train, tiny.data, 5, 0).batch(7)
    assert batch.mel_BTM.shape[1] % 5 == 0
