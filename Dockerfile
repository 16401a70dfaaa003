# One image for the four apps; the command says which. Any Debian with Node 24 and npm will do as NODE_IMAGE.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS manifests
COPY . /app
# What decides about the dependencies: as long as none of it changes, they come from the cache.
RUN find /app -type f ! -name package.json ! -name package-lock.json ! -name .npmrc -delete

FROM ${NODE_IMAGE}
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates qemu-system-x86 qemu-utils \
  && rm -rf /var/lib/apt/lists/*

WORKDIR /app
# Workspaces stay links out of node_modules: Node strips types from no file that really lies in there.
COPY --from=manifests /app ./
RUN npm ci --omit=dev --workspace=@stillframe/stillframe && rm -rf ~/.npm

# The built-in guests: a kernel and busybox by apt, unpacked and not installed.
COPY scripts scripts
COPY packages/hypervisors/guests packages/hypervisors/guests
RUN node scripts/setup.ts start && rm -rf .tools/demo-guest-parts

COPY . .
# An account of its own, the same in every container: the workers share the files of the pool. The guests are reached by a
# link, so that a volume over DATA_DIR keeps up with a newer image.
RUN install -m 755 scripts/container-entry.sh /usr/local/bin/with-secrets \
  && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin stillframe \
  && install -d -o stillframe -g stillframe -m 700 /var/lib/stillframe /var/lib/stillframe-storage \
    /run/stillframe /run/stillframe/api /run/stillframe/database \
  && ln -s /app/.tools/guests /var/lib/stillframe/images \
  && chown -h stillframe:stillframe /var/lib/stillframe/images
USER stillframe
ENV NODE_ENV=production DATA_DIR=/var/lib/stillframe STORAGE_DIR=/var/lib/stillframe-storage
ENTRYPOINT ["with-secrets"]
CMD ["node", "apps/api/main.mjs"]
