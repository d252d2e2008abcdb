#!/usr/bin/env bash
# Build the image for this machine, with buildah, podman or docker, whichever is there:
#
#   deploy/image/build.sh [ARCHIVE]     ARCHIVE: also write it there, as an OCI archive
#
# TRANSPORT=grpcio leaves Envoy out. BUILDER, PYTHON_IMAGE and IMAGE choose the program, the base and the name, and
# BUILDAH_OPTIONS are passed on. What git has committed is built, so a dirty tree builds the same as a clone of it.
set -euo pipefail
archive=${1:+$(realpath "$1")}
cd "$(dirname "$0")/../.."

usable() {
    case $1 in
        docker) command -v docker >/dev/null && docker info >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

builder=${BUILDER:-}
for candidate in buildah podman docker; do
    [ -n "$builder" ] || ! usable "$candidate" || builder=$candidate
done
[ -n "$builder" ] || { echo 'neither buildah, nor podman, nor a docker engine is here' >&2; exit 1; }

transport=${TRANSPORT:-envoy}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image=${IMAGE:-pointsman-server:$version$([ "$transport" = envoy ] || echo "-$transport")}
arguments=(--build-arg "TRANSPORT=$transport" --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)" --tag "$image")
[ -z "${PYTHON_IMAGE:-}" ] || arguments+=(--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE")

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
git archive HEAD | tar -x -C "$context"

case $builder in
    docker) docker buildx build --load "${arguments[@]}" "$context" ;;
    # The health check is kept by the format of Docker alone.
    podman) podman build --format docker "${arguments[@]}" "$context" ;;
    buildah) buildah build --format docker ${BUILDAH_OPTIONS:-} "${arguments[@]}" "$context" ;;
    *) echo "BUILDER is buildah, podman or docker, not $builder" >&2; exit 1 ;;
esac

if [ -n "$archive" ]; then
    rm -f "$archive"
    case $builder in
        docker) docker buildx build --output "type=oci,dest=$archive" "${arguments[@]}" "$context" ;;
        podman) podman push "$image" "oci-archive:$archive" ;;
        buildah) buildah push "$image" "oci-archive:$archive" ;;
    esac
fi
echo "$image"
