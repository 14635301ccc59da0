#!/usr/bin/env bash
# Writes the pinned requirement files: exact versions and hashes for every platform and Python that pyproject.toml allows.
# torch and what only its CUDA build needs stay out: torch.txt pins torch alone, so that UV_TORCH_BACKEND picks its build.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}
torch_only=(torch triton cuda-bindings cuda-pathfinder cuda-toolkit)
for name in cublas cuda-cccl cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
            cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx; do
  torch_only+=("nvidia-$name")
done
skip=()
for name in "${torch_only[@]}"; do skip+=(--no-emit-package "$name"); done
compile() {
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
    --no-annotate --custom-compile-command "make lock" "$@"
}
compile pyproject.toml "${skip[@]}" -o requirements/runtime.txt
compile pyproject.toml --group dev --group build "${skip[@]}" -c requirements/runtime.txt -o requirements/dev.txt
echo "uv>=0.9" | compile - -o requirements/uv.txt
