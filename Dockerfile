# Riposte: one static binary and nothing else.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN mkdir -p -m 1777 /image/tmp && mkdir -p /image/etc/ssl/certs \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags=-s -o /image/riposte ./cmd/riposte

FROM scratch
COPY --from=build /image/ /
ENTRYPOINT ["/riposte"]
