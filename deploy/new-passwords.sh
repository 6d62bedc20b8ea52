#!/bin/sh
# Gives every user of Redis a new random password: the password goes to secrets/USER.password,
# its SHA-256 into users.acl. No password is ever an argument of a process.
#
#   sh deploy/new-passwords.sh && docker-compose up -d --force-recreate
set -eu
cd "$(dirname "$0")"

# Files are mounted into containers, whose root may lack the right to read a file that is
# another user's and private. So the files are readable, and the folder keeps others out.
umask 022
mkdir -p secrets
chmod 700 secrets

for user in sensor responder; do
	password=$(head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n')
	hash=$(printf %s "$password" | openssl dgst -sha256 -r | cut -d' ' -f1)
	test ${#password} = 64 && test ${#hash} = 64
	acl=$(sed "s/^\(user $user on \)#[0-9a-f]*/\1#$hash/" users.acl)
	printf '%s\n' "$password" >secrets/$user.password
	printf '%s\n' "$acl" >users.acl # in place: a mounted file keeps its inode
done
